/** The chat page: its composer, its buttons, and what it says about itself. */

import { Attachments } from "./attachments.js";
import { Conversation } from "./conversation.js";
import { canBeSigned, limits, MoorlineError, signsIn } from "./device.js";
import { Log } from "./log.js";
import { inWords, isRefused, NOT_SIGNED_IN } from "./problems.js";
import { titled } from "./text.js";

/** Milliseconds for which an announcement stays, so that it is read once, and not found again later. */
const ANNOUNCED = 10_000;

/** @template {HTMLElement} T @param {string} id @param {new () => T} type @returns {T} */
function part(id, type) {
  const found = document.getElementById(id);
  if (!(found instanceof type)) throw new Error(`The page has no ${id}.`);
  return found;
}

const text = part("text", HTMLTextAreaElement);
const send = part("send", HTMLButtonElement);
const stop = part("stop", HTMLButtonElement);
const earlier = part("earlier", HTMLButtonElement);
const erase = part("delete", HTMLButtonElement);
const confirm = part("confirm", HTMLDialogElement);
const connection = part("connection", HTMLElement);
const announcer = part("announcer", HTMLElement);

const touched = matchMedia("(hover: none) and (pointer: coarse)");

const log = new Log({
  scroll: part("scroll", HTMLElement),
  log: part("log", HTMLElement),
  empty: part("empty", HTMLElement),
  latest: part("latest", HTMLButtonElement),
});

const attachments = new Attachments(
  {
    button: part("attach", HTMLButtonElement),
    input: part("files", HTMLInputElement),
    list: part("attached", HTMLElement),
    problem: part("attach-problem", HTMLElement),
  },
  (words) => {
    if (words) announce(words);
    showButtons();
  },
);

const conversation = new Conversation(log, {
  announce,
  draft(words, files) {
    text.value = [words, text.value].filter((each) => each.trim()).join("\n");
    attachments.restore(files);
    text.focus();
    composed();
  },
  changed: showButtons,
  anew: () => load(() => conversation.anew()),
  held(agent) {
    part("holder", HTMLElement).textContent = agent === null ? "" : `with ${titled(agent)}`;
  },
});

/** @param {string} words */
function announce(words) {
  const said = document.createElement("p");
  said.textContent = words;
  announcer.append(said);
  setTimeout(() => said.remove(), ANNOUNCED);
}

function showButtons() {
  const written = text.value.trim() !== "" || attachments.any;
  const focused = document.activeElement === stop;
  stop.hidden = !conversation.running;
  send.hidden = conversation.running && !written;
  send.disabled = !written;
  earlier.hidden = !conversation.hasEarlier;
  erase.hidden = !conversation.begun;
  if (focused && stop.hidden) text.focus();
}

function composed() {
  text.style.height = "auto";
  text.style.height = `${text.scrollHeight}px`;
  showButtons();
}

// ---- The composer

part("composer", HTMLFormElement).addEventListener("submit", (event) => {
  event.preventDefault();
  const words = text.value.trim();
  if (!words && !attachments.any) return;
  text.value = "";
  conversation.say(words, attachments.take());
  composed();
  text.focus();
});

text.addEventListener("input", composed);
text.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && conversation.running) conversation.stop();
  // While a word is being composed, Enter belongs to the input method; on a phone it begins a new line.
  if (event.key !== "Enter" || event.shiftKey || event.isComposing || touched.matches) return;
  event.preventDefault();
  text.form?.requestSubmit();
});

text.addEventListener("paste", (event) => {
  const pasted = event.clipboardData;
  // What is copied from a document is its text, and a picture of that.
  const written = pasted?.types.includes("text/plain") && pasted.types.includes("text/html");
  if (!pasted?.files.length || written) return;
  event.preventDefault();
  attachments.add([...pasted.files]);
});

// Files may be dropped anywhere: the browser would leave the page for one that misses the text.
for (const name of /** @type {const} */ (["dragenter", "dragover", "drop", "dragleave"])) {
  addEventListener(name, (event) => {
    const over = name === "dragenter" || name === "dragover";
    if (!event.dataTransfer?.types.includes("Files")) return;
    if (name !== "dragleave") event.preventDefault();
    document.body.classList.toggle("dropping", over || (name === "dragleave" && event.relatedTarget !== null));
    if (name !== "drop") return;
    attachments.add([...event.dataTransfer.files]);
    text.focus();
  });
}

stop.addEventListener("click", () => conversation.stop());

// Buttons in the conversation go when they are pressed; who uses a keyboard goes on writing.
part("log", HTMLElement).addEventListener("click", (event) => {
  if (event.target instanceof HTMLButtonElement && !touched.matches) text.focus();
});

// ---- What was said before

earlier.addEventListener("click", loadEarlier);
new IntersectionObserver(([entry]) => entry.isIntersecting && loadEarlier()).observe(earlier);

async function loadEarlier() {
  if (earlier.disabled || !conversation.hasEarlier) return;
  earlier.disabled = true;
  try {
    await conversation.earlier();
  } catch (error) {
    if (!(error instanceof MoorlineError)) throw error;
  } finally {
    earlier.disabled = false;
    showButtons();
  }
}

// ---- Deleting it

erase.addEventListener("click", () => confirm.showModal());
part("confirm-delete", HTMLButtonElement).addEventListener("click", async () => {
  const problem = part("confirm-problem", HTMLElement);
  problem.hidden = true;
  try {
    await conversation.erase();
    location.reload();
  } catch (error) {
    if (!(error instanceof MoorlineError)) throw error;
    problem.textContent = "It could not be deleted. Try again in a moment.";
    problem.hidden = false;
  }
});

// ---- The connection, and the size of what is seen

function showConnection() {
  connection.textContent = navigator.onLine ? "" : "You are offline. What you write is sent when you are back.";
}

addEventListener("offline", showConnection);
addEventListener("online", () => {
  showConnection();
  conversation.reconnect();
});
document.addEventListener("visibilitychange", () => {
  if (!document.hidden) conversation.refresh().catch(() => {});
});

// A keyboard on the screen of a phone covers a part of the page: the page takes what is left.
function fit() {
  const seen = visualViewport;
  if (!seen || seen.scale !== 1) return;
  document.documentElement.style.setProperty("--seen", `${seen.height}px`);
  scrollTo(0, 0);
}
visualViewport?.addEventListener("resize", fit);

/** @param {() => Promise<void>} begin */
async function load(begin) {
  showConnection();
  try {
    await begin();
    limits().then((found) => attachments.limit(found), () => {}); // without them nothing can be attached
  } catch (error) {
    if (!(error instanceof MoorlineError)) throw error;
    if (isRefused(error)) await refused(error);
    else offer("The conversation cannot be loaded.", "Try again", () => conversation.load());
  }
  showButtons();
}

/** @param {MoorlineError} error */
async function refused(error) {
  if (signsIn()) {
    offer(inWords(error), "Try again", () => conversation.load());
  } else if (await canBeSigned().catch(() => true)) {
    offer(inWords(error), "Start a new conversation", () => conversation.anew());
  } else {
    connection.textContent = NOT_SIGNED_IN;
    text.disabled = true;
  }
}

/** @param {string} problem @param {string} label @param {() => Promise<void>} act */
function offer(problem, label, act) {
  const button = document.createElement("button");
  button.type = "button";
  button.textContent = label;
  button.addEventListener("click", () => load(act));
  connection.replaceChildren(`${problem} `, button);
}

text.enterKeyHint = touched.matches ? "enter" : "send";
composed();
load(() => conversation.load());
