-- Writes which session a device has, unless something newer is there.
--
-- KEYS: the entry, its floor, the epoch. ARGV: fence and moment, which order what is written of a device; milliseconds
-- that the session will live; the session, empty for none; an epoch, in case there is none.
-- Returns 1 if the session is written, 0 if readers have to ask PostgreSQL.
--
-- Where there is no entry, the floor keeps the newest fence and moment for an hour: a writer that comes late must not
-- write what is over.

local fence, moment = tonumber(ARGV[1]), tonumber(ARGV[2])
local newest = {ARGV[1], ARGV[2]}
local newer = false

for _, key in ipairs({KEYS[1], KEYS[2]}) do
    local held = redis.pcall('HMGET', key, 'fence', 'moment')  -- of another type, it is not ours
    local its_fence, its_moment = tonumber(held[1] or ''), tonumber(held[2] or '')
    if its_fence and its_moment and (its_fence > fence or its_fence == fence and its_moment > moment) then
        newer = true
        if its_fence > tonumber(newest[1]) or its_fence == tonumber(newest[1]) and its_moment > tonumber(newest[2]) then
            newest = {held[1], held[2]}
        end
    end
end

redis.call('DEL', KEYS[1])

if newer or ARGV[4] == '' then
    redis.call('DEL', KEYS[2])
    redis.call('HSET', KEYS[2], 'fence', newest[1], 'moment', newest[2])
    redis.call('EXPIRE', KEYS[2], 3600)
    return 0
end

local epoch = redis.pcall('GET', KEYS[3])
if type(epoch) ~= 'string' then
    epoch = ARGV[5]
    redis.call('SET', KEYS[3], epoch)
end
local server = string.match(redis.call('INFO', 'server'), 'run_id:(%w+)')
local written = redis.call('TIME')[1]
redis.call('HSET', KEYS[1], 'fence', ARGV[1], 'moment', ARGV[2], 'session', ARGV[4],
    'server', server, 'epoch', epoch, 'written', written)
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return 1
