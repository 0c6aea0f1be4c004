/** Errors in plain words. */

import { signsIn } from "./device.js";

/** @typedef {import("./device.js").MoorlineError} MoorlineError */

/** @type {Record<string, string>} */
const WORDS = {
  ConnectionLost: "The server cannot be reached. Your message is kept here.",
  SessionBusy: "Too many messages are waiting. Try again in a moment.",
  TurnTimeout: "This took too long.",
  StoreUnavailable: "The service is not available at the moment. Your message is kept here.",
  ModelError: "The assistant does not answer at the moment.",
  MessageSetAside: "This message failed too often and was set aside.",
  InvalidRequest: "This message cannot be sent. It may be too long.",
  NothingWaits: "This question was answered already.",
  Stopped: "This message was not sent.",
};

/** @type {Record<number, string>} */
const BY_STATUS = {
  408: "Your connection is too slow for this message. It is kept here.",
  413: "This message is too large. Send it in parts.",
  429: "That were too many messages in a short time. Try again in a moment.",
};

export const NOT_SIGNED_IN =
  "You are not signed in. Only people who sign in can chat here, and this page has no sign-in: open the page that has.";

/** Whether the server does not accept who this page says it is. @param {MoorlineError} error */
export function isRefused(error) {
  return error.status === 401 || error.status === 403;
}

/** @param {MoorlineError} error */
export function inWords(error) {
  if (isRefused(error) && signsIn()) return "You are no longer signed in. Sign in again.";
  if (isRefused(error)) return "This browser may no longer read this conversation.";
  if (error.kind === "FilesLost") return error.message;
  // It says what is wrong with it, and to those who run the server which setting that is.
  if (error.kind === "InvalidMessage") return error.message.replace(/ \(MOORLINE_\w+\)/g, "");
  const what = BY_STATUS[error.status] ?? WORDS[error.kind] ?? "Something went wrong, and there is no answer.";
  const stands = error.effectsKept ? " What was done so far stands, and is not done twice." : "";
  return what + stands;
}
