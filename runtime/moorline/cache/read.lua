-- The session of a device, if its entry can be believed: it was written since this server started, because a server
-- that starts may have an older copy of everything; in the epoch, which a writer changes when it may have missed
-- something; and not so long ago that a writer which died since could have left it behind for long.
--
-- KEYS: the entry, the epoch. ARGV: seconds for which an entry is believed.

local entry = redis.call('HMGET', KEYS[1], 'session', 'server', 'epoch', 'written')
if not entry[1] then
    return false
end
local age = redis.call('TIME')[1] - (tonumber(entry[4] or '') or 0)
if age > tonumber(ARGV[1]) or entry[3] ~= redis.call('GET', KEYS[2]) then
    return false
end
if entry[2] ~= string.match(redis.call('INFO', 'server'), 'run_id:(%w+)') then
    return false
end
return entry[1]
