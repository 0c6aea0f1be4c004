/** Other tabs of the same conversation: what they send is shown here, and what a closed one left is sent from here. */

/** @type {BroadcastChannel | null} */
let channel = null;
try {
  channel = new BroadcastChannel("moorline");
} catch {
  // A page that may store nothing has no channel, either; it finds out from the transcript.
}

/** @param {object} what */
export function tell(what) {
  channel?.postMessage(what);
}

/** @param {(what: any) => void} hear */
export function listen(hear) {
  channel?.addEventListener("message", (event) => hear(event.data));
}

/**
 * Runs `work` as the one tab that sends this message; gives false, and does nothing, if another tab sends it.
 * @param {string} messageId
 * @param {() => Promise<void>} work
 * @returns {Promise<boolean>}
 */
export async function sending(messageId, work) {
  return locked(messageId, { ifAvailable: true }, () => work());
}

/**
 * Waits until no other tab sends this message; gives false, at once, if that cannot be known.
 * @param {string} messageId
 * @returns {Promise<boolean>}
 */
export async function free(messageId) {
  let sure = true;
  await locked(messageId, {}, async (lock) => {
    sure = lock !== null;
  });
  return sure;
}

/**
 * @param {string} messageId
 * @param {LockOptions} options
 * @param {(lock: Lock | null) => Promise<void>} work is given null if there are no locks
 * @returns {Promise<boolean>}
 */
async function locked(messageId, options, work) {
  let begun = false;
  try {
    return await navigator.locks.request(`moorline.sending.${messageId}`, options, async (lock) => {
      begun = true;
      if (lock) await work(lock);
      return lock !== null;
    });
  } catch (error) {
    if (begun) throw error;
    await work(null); // without locks two tabs may send it; it is still one message, with one turn
    return true;
  }
}
