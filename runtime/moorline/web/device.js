/**
 * Moorline for a web page: an ES module without dependencies.
 *
 *     import { stream } from "./device.js";
 *     for await (const event of stream("When are you open?")) console.log(event.type);
 *
 * It knows who this device is, and it keeps every message until its reply is there. What is lost on the way is sent
 * again under the same message ID, so a message has one turn and one reply, however often it is sent.
 */

/** A question that an agent stopped to ask. @typedef {{id: string, value: unknown}} Interrupt */
/** The answer to one. @typedef {{interrupt_id: string, value: unknown}} Answer */
/** What a person says: a text, or the answer to a question. @typedef {string | Answer} Said */
/** A file that came with a message. @typedef {{hash: string, type: string, name: string, size: number}} KeptFile */
/**
 * A message that has no reply yet, and what its files are called: `filesOf` has them.
 * @typedef {{id: string, said: Said, files: string[], at: number, device: string | null}} Message
 */
/** What the files of a message may be. @typedef {{file_types: string[], file_max: number, files_max: number, files_total_max: number}} Limits */
/**
 * @typedef {object} Reply
 * @property {string} message_id
 * @property {string} text
 * @property {string | null} agent
 * @property {number} turn_no
 * @property {boolean} replayed
 * @property {string[]} handoffs
 * @property {Interrupt | null} interrupt
 * @property {string | null} notice
 * @property {Reply[]} recovered
 * @property {boolean} degraded
 */
/**
 * An event as the server tells it; docs/events.schema.json has all types, and new ones may come. One is told by this
 * module: `connection_lost`, after which the turn is told anew.
 * @typedef {{type: string, turn_no?: number, agent?: string | null, [field: string]: any}} TurnEvent
 */
/**
 * @typedef {object} Turn
 * @property {number} turn_no
 * @property {string[]} message_ids
 * @property {string[]} texts
 * @property {KeptFile[][]} files of each text; empty if none had any
 * @property {string} reply
 * @property {string | null} agent
 * @property {Interrupt | null} interrupt
 * @property {string} started_at
 * @property {string} committed_at
 */
/** @typedef {{id: string, token: string | null}} Device */

/** Milliseconds until an answer has to begin: a little longer than a turn may take. */
const BEGINNING = 75_000;
/** Milliseconds without a sign of life, after which a connection counts as lost; the server gives one every 15 s. */
const SILENCE = 45_000;
/** Bytes in a millisecond with which a body is sent at the slowest. */
const SLOWEST = 50;
/** Milliseconds for which something is tried again; time offline does not count. */
const PATIENCE = 120_000;
const FIRST_PAUSE = 500;
const LONGEST_PAUSE = 15_000;
/** Failures of the turn itself are tried once more; then a person decides. */
const ONCE_MORE = new Set(["AgentError", "ModelError"]);
/** Milliseconds after which what one tab has stored is seen by the others, whose processes are told of it. */
const PROPAGATION = 150;
const YEAR = 31_536_000;

const DEVICE = "moorline.device";
const MESSAGE = "moorline.message.";
const FILES = "files";
/** Characters of a file's name that are sent: its end says more. */
const LONGEST_NAME = 200;

const settings = {
  base: new URL("v1/", import.meta.url).href,
  /** @type {string | null} */
  person: null,
  /** @type {null | (() => string | Promise<string>)} */
  token: null,
};

/**
 * For a page that is served from elsewhere (`base`, the address that ends in `/v1/`), or whose people sign in: `token`
 * gives the token of the team's own issuer, and `person` tells people who share a browser apart.
 * @param {{base?: string | URL, token?: () => string | Promise<string>, person?: string}} changes
 */
export function configure({ base, token, person }) {
  if ((token === undefined) !== (person === undefined)) throw new TypeError("token and person belong together.");
  if (base !== undefined) settings.base = new URL(base, import.meta.url).href;
  if (token !== undefined && person !== undefined) Object.assign(settings, { token, person });
}

/** What went wrong, as the server tells it, or `ConnectionLost`, or `FilesLost`: this browser no longer has the files. */
export class MoorlineError extends Error {
  /**
   * @param {string} kind the error's class on the server, such as `SessionBusy`
   * @param {string} message
   * @param {{status?: number, retryable?: boolean, messageId?: string | null, effectsKept?: boolean,
   *   retryAfter?: number | null, cause?: unknown}} [details]
   */
  constructor(kind, message, details = {}) {
    super(message, { cause: details.cause });
    this.name = "MoorlineError";
    this.kind = kind;
    /** The HTTP status, or 0. */
    this.status = details.status ?? 0;
    /** Whether sending the same message again, with the same ID, may help. */
    this.retryable = details.retryable ?? false;
    this.messageId = details.messageId ?? null;
    /** Whether tools have done something that stands; the same message again finishes the turn. */
    this.effectsKept = details.effectsKept ?? false;
    /** Milliseconds after which the server wants to be asked again, or null. */
    this.retryAfter = details.retryAfter ?? null;
  }
}

/**
 * The ID of this device. It is made once and kept in localStorage, else in a cookie, else as long as the page lives;
 * all tabs have the same. If the server signs devices, ID and token come from it.
 * @returns {Promise<string>}
 */
export async function ensureDeviceId() {
  return settings.person ?? (await device()).id;
}

/** Whether this page brings a token of the team's own issuer: see `configure`. */
export function signsIn() {
  return settings.token !== null;
}

/**
 * Whether this device has a token of the server's, or can get one. If it cannot, and its ID alone is refused, the server
 * wants a token of the team's own issuer. Throws a `MoorlineError`.
 */
export async function canBeSigned() {
  return storedDevice()?.token != null || (await newDevice()).token !== null;
}

/**
 * Sends a message and gives its reply. Throws a `MoorlineError` if there is none; what is retryable is kept, and can be
 * sent again with the same ID, also after a reload: see `unanswered`. A text may have files, and may be empty then; what
 * is kept of a message has them, so that they need not be given again.
 * @param {Said} said
 * @param {{files?: File[], messageId?: string, signal?: AbortSignal}} [options]
 * @returns {Promise<Reply>}
 */
export async function send(said, options) {
  for await (const event of stream(said, options)) if (event.type === "turn_finished") return event.reply;
  throw lost();
}

/**
 * Sends a message and gives the events of its turn as they come; the last one is `turn_finished`. A turn that fails
 * throws a `MoorlineError`, as `send` does. After `text_withdrawn` and `connection_lost` the text begins anew. The
 * turn goes on if this is left, or aborted with `signal`.
 * @param {Said} said
 * @param {{files?: File[], messageId?: string, signal?: AbortSignal}} [options]
 * @returns {AsyncGenerator<TurnEvent, void, void>}
 */
export async function* stream(said, { files, messageId, signal } = {}) {
  const message = keep(said, messageId, files);
  const patience = new Patience();
  for (;;) {
    try {
      for await (const event of attempt(message, patience, signal)) {
        if (event.type === "turn_finished") discard(message.id);
        yield event;
        if (event.type === "turn_finished") return;
      }
      throw lost();
    } catch (error) {
      if (!(error instanceof MoorlineError)) throw error;
      // A message that is refused is done with; one whose sender is refused, or whose files are gone, is the person's.
      if (!error.retryable && ![401, 403].includes(error.status) && error.kind !== "FilesLost") discard(message.id);
      if (!patience.allows(error)) throw error;
      if (error.kind === "ConnectionLost") yield { type: "connection_lost", online: navigator.onLine };
      else yield { type: "text_withdrawn" };
      await patience.wait(error, signal);
    }
  }
}

/**
 * Ends the turn of a message: nothing further is asked or done, and its reply is what there is. Gives whether a turn
 * was running.
 * @param {string} messageId
 * @returns {Promise<boolean>}
 */
export async function stop(messageId) {
  return (await ask("POST", `messages/${encodeURIComponent(messageId)}/stop`)).stopped;
}

/**
 * A page of the conversation, newest turn first; `next` is the `before` of the page that follows, or null.
 * @param {{before?: number | string | null, limit?: number}} [options]
 * @returns {Promise<{turns: Turn[], next: number | string | null}>}
 */
export async function transcript({ before = null, limit = 20 } = {}) {
  const query = new URLSearchParams({ limit: String(limit), ...(before === null ? {} : { before: String(before) }) });
  return ask("GET", `transcript?${query}`);
}

/** What the files of a message may be. @returns {Promise<Limits>} */
export async function limits() {
  return ask("GET", "limits");
}

/**
 * A file that came with a message, by its `hash` in the transcript. Somebody has sent it: show it as a picture at most,
 * or offer it as a download.
 * @param {string} hash
 * @returns {Promise<Blob>}
 */
export async function file(hash) {
  return ask("GET", `files/${encodeURIComponent(hash)}`, { accept: "*/*", read: (response) => response.blob() });
}

/**
 * Which agent holds the conversation, and the question that waits for an answer.
 * @returns {Promise<{agent: string | null, since: string | null, expires_at: string | null, pending: Interrupt | null}>}
 */
export async function session() {
  return ask("GET", "session");
}

/** Erases the whole conversation, on the server and here. The next message is a new device's. */
export async function erase() {
  await ask("DELETE", "device");
  forget();
}

/** Forgets here who this device is, and its messages. On the server nothing changes. */
export function forget() {
  for (const message of unanswered()) discard(message.id);
  for (const store of [local, cookie, memory]) store.remove(DEVICE);
}

/**
 * The messages of this device that have no reply yet, oldest first: for a page that was reloaded.
 * @returns {Message[]}
 */
export function unanswered() {
  const own = settings.person ?? storedDevice()?.id ?? null;
  const keys = new Set([...local.keys(), ...memory.keys()].filter((key) => key.startsWith(MESSAGE)));
  return [...keys]
    .map((key) => /** @type {Message | null} */ (parsed(stored(key, [local, memory]))))
    .filter((message) => message !== null)
    .filter((message) => message.device === null || message.device === own)
    .map((message) => ({ ...message, files: message.files ?? [] }))
    .sort((one, other) => one.at - other.at);
}

/**
 * No longer keeps a message: it is not sent again after a reload.
 * @param {string} messageId
 */
export function discard(messageId) {
  const known = kept(messageId);
  for (const store of [local, memory]) store.remove(MESSAGE + messageId);
  openFiles.delete(messageId);
  if (known?.files?.length) inDatabase("readwrite", (files) => files.delete(messageId)).catch(() => {});
}

/**
 * Keeps a message until its reply is there, with its files. `stream` and `send` do so themselves.
 * @param {Said} said
 * @param {string} [messageId]
 * @param {File[]} [files]
 * @returns {Message}
 */
export function keep(said, messageId, files = []) {
  // An answer to a question is one message, however often and in how many tabs it is given.
  const id = messageId ?? (typeof said === "string" ? uuid() : `resume:${said.interrupt_id}`);
  const known = kept(id);
  const own = settings.person ?? storedDevice()?.id ?? null;
  const names = files.length > 0 ? files.map((file) => file.name) : (known?.files ?? []);
  const message = { id, said, files: names, at: known?.at ?? Date.now(), device: own };
  store(MESSAGE + id, JSON.stringify(message), [local, memory]);
  if (files.length > 0 && !openFiles.has(id)) {
    openFiles.set(id, files);
    // Without the message nobody would ever remove them.
    const lasts = local.get(MESSAGE + id) !== null;
    if (lasts) inDatabase("readwrite", (all) => all.put(files, id)).catch(() => {}); // they are kept while the page lives
  }
  return message;
}

/**
 * The files of a message that is kept. Throws a `MoorlineError` of the kind `FilesLost` if this browser had no room for
 * them, and the page that sent them is gone.
 * @param {string} messageId
 * @returns {Promise<File[]>}
 */
export async function filesOf(messageId) {
  const names = kept(messageId)?.files ?? [];
  if (names.length === 0) return [];
  const found =
    openFiles.get(messageId) ?? (await inDatabase("readonly", (files) => files.get(messageId)).catch(() => undefined));
  if (!found) throw gone(names, messageId);
  openFiles.set(messageId, found);
  return found;
}

/** @param {string} messageId @returns {Message | null} */
function kept(messageId) {
  return parsed(stored(MESSAGE + messageId, [local, memory]));
}

/** @param {string[]} names @param {string} messageId @param {unknown} [cause] */
function gone(names, messageId, cause) {
  const which = names.filter(Boolean).join(", ") || "the file";
  const again = `Attach ${names.length > 1 ? "them" : "it"} again.`;
  return new MoorlineError("FilesLost", `This browser no longer has ${which}. ${again}`, { messageId, cause });
}

// ---- One message on its way

/**
 * @param {Message} message
 * @param {Patience} patience
 * @param {AbortSignal} [signal]
 * @returns {AsyncGenerator<TurnEvent, void, void>}
 */
async function* attempt(message, patience, signal) {
  const files = await inBase64(message);
  const words = typeof message.said === "string" ? { text: message.said } : { resume: message.said };
  const said = files.length > 0 ? { ...words, files } : words;
  const line = new Line(signal);
  try {
    const response = await line.request("POST", "messages", {
      accept: "text/event-stream",
      body: { ...said, message_id: message.id },
    });
    if (!response.headers.get("Content-Type")?.startsWith("text/event-stream") || !response.body) throw lost();
    for await (const event of line.events(response.body)) {
      patience.heard();
      if (event.type === "turn_failed") throw failure(event.error);
      yield event;
    }
  } finally {
    line.close();
  }
}

/**
 * The files of a message as they are sent. Their types are not: what a file is, the server reads from its bytes.
 * @param {Message} message
 */
async function inBase64({ id, files: names }) {
  const files = await filesOf(id);
  const reading = files.map(async (file) => ({ data: await base64(file), name: file.name.slice(-LONGEST_NAME).toWellFormed() }));
  return Promise.all(reading).catch((cause) => {
    throw gone(names, id, cause);
  });
}

/** @param {Blob} blob @returns {Promise<string>} */
function base64(blob) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(String(reader.result).replace(/^[^,]*,/, ""));
    reader.onerror = () => reject(reader.error);
    reader.readAsDataURL(blob);
  });
}

/**
 * A request that can be made again while that makes sense.
 * @param {string} method
 * @param {string} path
 * @param {{accept?: string, read?: (response: Response) => Promise<any>}} [options]
 * @returns {Promise<any>}
 */
async function ask(method, path, { accept, read = (response) => response.json() } = {}) {
  const patience = new Patience();
  for (;;) {
    const line = new Line();
    try {
      const response = await line.request(method, path, { accept });
      return await line.whole(response, read);
    } catch (error) {
      if (!(error instanceof MoorlineError) || !patience.allows(error)) throw error;
      await patience.wait(error);
    } finally {
      line.close();
    }
  }
}

/** A request that ends when its caller gives up, when the device goes offline, and when nothing has come for long. */
class Line {
  #broken = new AbortController();
  #timer = 0;
  #signal;
  #given;
  #offline = () => this.#broken.abort(lost());

  /** @param {AbortSignal} [given] */
  constructor(given) {
    this.#given = given;
    this.#signal = given ? AbortSignal.any([given, this.#broken.signal]) : this.#broken.signal;
    addEventListener("offline", this.#offline);
  }

  /**
   * @param {string} method
   * @param {string} path
   * @param {{accept?: string, body?: object, anonymous?: boolean}} options
   */
  async request(method, path, { accept = "application/json", body, anonymous = false }) {
    const own = anonymous ? null : await credentials();
    /** @type {Record<string, string>} */
    const headers = { Accept: accept, ...own?.headers };
    if (body) headers["Content-Type"] = "application/json";
    const text = body ? JSON.stringify(body) : null;
    this.#expect(BEGINNING + (text?.length ?? 0) / SLOWEST);
    const response = await this.#reached(() =>
      fetch(new URL(path, settings.base), {
        method,
        headers,
        body: text,
        cache: "no-store",
        signal: this.#signal,
      }),
    );
    this.#expect(SILENCE);
    const renewed = response.headers.get("X-Device-Token");
    if (renewed && own?.device?.token) renew(own.device, renewed);
    if (!response.ok) throw await this.#problem(response);
    return response;
  }

  /** @param {Response} response @param {(response: Response) => Promise<any>} read */
  async whole(response, read) {
    if (response.status === 204) return null;
    this.#expect(SILENCE + Number(response.headers.get("Content-Length") ?? 0) / SLOWEST);
    return this.#reached(() => read(response));
  }

  /**
   * The events of a text/event-stream.
   * @param {ReadableStream<BufferSource>} body
   * @returns {AsyncGenerator<TurnEvent, void, void>}
   */
  async *events(body) {
    const reader = body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";
    for (;;) {
      const { done, value } = await this.#reached(() => reader.read());
      if (done) return;
      this.#expect(SILENCE);
      const blocks = (rest + value).split(/\r\n\r\n|\n\n|\r\r/);
      rest = blocks.pop() ?? "";
      for (const block of blocks) {
        const lines = block.split(/\r\n|\n|\r/).filter((line) => line.startsWith("data:"));
        const data = lines.map((line) => line.slice(line.startsWith("data: ") ? 6 : 5)).join("\n");
        if (data) yield JSON.parse(data);
      }
    }
  }

  close() {
    clearTimeout(this.#timer);
    removeEventListener("offline", this.#offline);
    this.#broken.abort();
  }

  /** @param {number} within */
  #expect(within) {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#broken.abort(lost()), within);
  }

  /**
   * @template T
   * @param {() => Promise<T>} work
   * @returns {Promise<T>}
   */
  async #reached(work) {
    try {
      return await work();
    } catch (error) {
      this.#given?.throwIfAborted();
      throw lost(error);
    }
  }

  /** @param {Response} response */
  async #problem(response) {
    const told = await this.#reached(() => response.json()).catch(() => ({}));
    const retryable = told.retryable ?? [408, 425, 429, 502, 503, 504].includes(response.status);
    return failure({ message: told.detail ?? told.title, ...told, retryable }, response);
  }
}

/** For how long something is tried again. */
class Patience {
  /** Since when nothing has been heard. */
  #silent = 0;
  /** Since when the server has told of problems. */
  #failing = 0;
  #failures = 0;
  #pause = 0;

  /** There was a sign of life. */
  heard() {
    this.#silent = 0;
  }

  /** Whether it makes sense to try again. @param {MoorlineError} error */
  allows(error) {
    if (!error.retryable) return false;
    if (!navigator.onLine) return true;
    const since = error.kind === "ConnectionLost" ? (this.#silent ||= Date.now()) : (this.#failing ||= Date.now());
    if (ONCE_MORE.has(error.kind) && this.#failures > 0) return false;
    this.#pause = error.retryAfter ?? Math.min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** this.#failures) * (0.5 + Math.random());
    this.#failures += 1;
    return Date.now() + this.#pause - since < PATIENCE;
  }

  /** Until the device is online, or for a while. @param {MoorlineError} error @param {AbortSignal} [signal] */
  async wait(error, signal) {
    const offline = !navigator.onLine;
    if (offline) this.#silent = this.#failures = 0;
    await new Promise((resolve) => {
      const timer = offline ? 0 : setTimeout(resolve, this.#pause);
      // Being back online is a reason to try at once, unless the server said when.
      const early = () => (offline || error.retryAfter === null) && (clearTimeout(timer), resolve(null));
      addEventListener("online", early, { once: true });
      signal?.addEventListener("abort", () => (clearTimeout(timer), resolve(null)), { once: true });
    });
    signal?.throwIfAborted();
  }
}

/** @param {unknown} [cause] */
function lost(cause) {
  if (cause instanceof MoorlineError) return cause;
  return new MoorlineError("ConnectionLost", "The server cannot be reached.", { retryable: true, cause });
}

/**
 * An error as the server tells it, in a problem or in an event.
 * @param {any} told
 * @param {Response} [response]
 */
function failure(told, response) {
  const status = response?.status ?? 0;
  return new MoorlineError(told.error ?? told.type ?? "Error", told.message ?? `The server answered ${status}.`, {
    status,
    retryable: told.retryable,
    messageId: told.message_id,
    effectsKept: told.effects_kept,
    retryAfter: pauseOf(response?.headers.get("Retry-After") ?? null),
  });
}

/** Milliseconds of a `Retry-After`, which has seconds or a date. @param {string | null} value */
function pauseOf(value) {
  if (value === null) return null;
  const pause = /^\d+$/.test(value.trim()) ? Number(value) * 1000 : Date.parse(value) - Date.now();
  return Number.isNaN(pause) ? null : Math.max(0, pause);
}

// ---- Who this device is

/** @type {Promise<Device> | null} */
let making = null;

/** @returns {Promise<{device: Device | null, headers: {Authorization: string} | {"X-Device-ID": string}}>} */
async function credentials() {
  if (settings.token) return { device: null, headers: { Authorization: `Bearer ${await ownToken(settings.token)}` } };
  const own = await device();
  return { device: own, headers: own.token ? { Authorization: `Bearer ${own.token}` } : { "X-Device-ID": own.id } };
}

/** @param {() => string | Promise<string>} token */
async function ownToken(token) {
  try {
    return await token();
  } catch (cause) {
    if (!navigator.onLine) throw lost(cause);
    throw new MoorlineError("Unidentified", "The page has no token of its person.", { status: 401, cause });
  }
}

/** @returns {Promise<Device>} */
async function device() {
  const found = storedDevice();
  if (found) return found;
  making ??= alone(DEVICE, async () => {
    await pause(PROPAGATION);
    const made = storedDevice() ?? (await newDevice());
    if (!storedDevice()) store(DEVICE, JSON.stringify(made), [local, cookie, memory]);
    await pause(PROPAGATION);
    return storedDevice() ?? made; // without locks two tabs may both have made one: all take what was written last
  }).finally(() => {
    making = null;
  });
  return making;
}

/** @param {number} time */
function pause(time) {
  return new Promise((resolve) => setTimeout(resolve, time));
}

/** @returns {Promise<Device>} */
async function newDevice() {
  const patience = new Patience();
  for (;;) {
    const line = new Line();
    try {
      const { device_id: id, token } = await line.whole(
        await line.request("POST", "devices", { anonymous: true }),
        (response) => response.json(),
      );
      return { id, token };
    } catch (error) {
      if (!(error instanceof MoorlineError)) throw error;
      if ([404, 405].includes(error.status)) return { id: uuid(), token: null }; // the server signs no devices
      if (!patience.allows(error)) throw error;
      await patience.wait(error);
    } finally {
      line.close();
    }
  }
}

/** @param {Device} old @param {string} token */
function renew(old, token) {
  if (storedDevice()?.id === old.id) store(DEVICE, JSON.stringify({ id: old.id, token }), [local, cookie, memory]);
}

/** @returns {Device | null} */
function storedDevice() {
  const found = parsed(stored(DEVICE, [local, cookie, memory]));
  return typeof found?.id === "string" ? { id: found.id, token: found.token ?? null } : null;
}

/**
 * Runs `work` while no other tab runs work of that name, if there are locks: a page that is not secure, or may store
 * nothing, has none.
 * @template T
 * @param {string} name
 * @param {() => Promise<T>} work
 * @returns {Promise<T>}
 */
async function alone(name, work) {
  let begun = false;
  const begin = () => {
    begun = true;
    return work();
  };
  try {
    return await navigator.locks.request(name, begin);
  } catch (error) {
    if (begun) throw error;
    return work();
  }
}

function uuid() {
  if (crypto.randomUUID) return crypto.randomUUID();
  const bytes = crypto.getRandomValues(new Uint8Array(16)); // a page that is not secure has no randomUUID
  bytes[6] = (bytes[6] & 0x0f) | 0x40;
  bytes[8] = (bytes[8] & 0x3f) | 0x80;
  const digits = Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
  return digits.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, "$1-$2-$3-$4-$5");
}

// ---- Where things are kept

/**
 * A place that keeps texts; what it cannot do, it throws or ignores.
 * @typedef {object} Store
 * @property {(key: string) => string | null} get
 * @property {(key: string, value: string) => void} set
 * @property {(key: string) => void} remove
 * @property {() => string[]} keys
 */

/** @type {Store} */
const local = guarded({
  get: (key) => localStorage.getItem(key),
  set: (key, value) => localStorage.setItem(key, value),
  remove: (key) => localStorage.removeItem(key),
  keys: () => Object.keys(localStorage),
});

/** @type {Store} */
const cookie = guarded({
  get: (key) => {
    const found = document.cookie.split("; ").find((each) => each.startsWith(`${key}=`));
    return found ? decodeURIComponent(found.slice(key.length + 1)) : null;
  },
  set: (key, value) => writeCookie(key, value, YEAR),
  remove: (key) => writeCookie(key, "", 0),
  keys: () => [],
});

/** @type {Map<string, string>} */
const values = new Map();
/** @type {Store} */
const memory = {
  get: (key) => values.get(key) ?? null,
  set: (key, value) => values.set(key, value),
  remove: (key) => values.delete(key),
  keys: () => [...values.keys()],
};

/** @param {string} key @param {string} value @param {number} age */
function writeCookie(key, value, age) {
  const secure = location.protocol === "https:" ? "; Secure" : "";
  document.cookie = `${key}=${encodeURIComponent(value)}; Max-Age=${age}; Path=/; SameSite=Lax${secure}`;
}

/**
 * A page may be refused its storage: reading it then gives nothing.
 * @param {Store} place
 * @returns {Store}
 */
function guarded(place) {
  /** @template T @param {() => T} work @param {T} otherwise */
  const attempted = (work, otherwise) => {
    try {
      return work();
    } catch {
      return otherwise;
    }
  };
  return {
    get: (key) => attempted(() => place.get(key), null),
    set: (key, value) => attempted(() => place.set(key, value), undefined),
    remove: (key) => attempted(() => place.remove(key), undefined),
    keys: () => attempted(() => place.keys(), []),
  };
}

/** Keeps a value in the first place that takes it. @param {string} key @param {string} value @param {Store[]} places */
function store(key, value, places) {
  for (const place of places) {
    place.set(key, value);
    if (place.get(key) === value) return;
  }
}

/** @param {string} key @param {Store[]} places */
function stored(key, places) {
  for (const place of places) {
    const value = place.get(key);
    if (value !== null) return value;
  }
  return null;
}

/** The files of messages that have been kept or read since the page was opened. @type {Map<string, File[]>} */
const openFiles = new Map();

/** @type {Promise<IDBDatabase> | null} */
let database = null;

/** @returns {Promise<IDBDatabase>} */
function opened() {
  database ??= new Promise((resolve, reject) => {
    const request = indexedDB.open("moorline", 1);
    request.onupgradeneeded = () => request.result.createObjectStore(FILES);
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
  return database;
}

/**
 * Works on the files that survive a reload, by their message's ID, in the order of the calls. Throws what the browser
 * throws, which may have no room, or no database.
 * @template T
 * @param {IDBTransactionMode} mode
 * @param {(files: IDBObjectStore) => IDBRequest<T>} work
 * @returns {Promise<T>}
 */
async function inDatabase(mode, work) {
  const transaction = (await opened()).transaction(FILES, mode);
  const request = work(transaction.objectStore(FILES));
  return new Promise((resolve, reject) => {
    transaction.oncomplete = () => resolve(request.result);
    transaction.onabort = () => reject(transaction.error);
  });
}

/** @param {string | null} text @returns {any} */
function parsed(text) {
  try {
    return JSON.parse(text ?? "null");
  } catch {
    return null;
  }
}
