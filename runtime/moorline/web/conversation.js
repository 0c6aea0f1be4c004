/** The conversation of this device: what is sent, what comes of it, and what other tabs and the transcript add. */

import * as device from "./device.js";
import { Exchange } from "./exchange.js";
import { ofPerson, ofServer } from "./files.js";
import { inWords, isRefused } from "./problems.js";
import { optionsOf, saidTo, textOf } from "./question.js";
import * as tabs from "./tabs.js";
import { titled } from "./text.js";

/** @typedef {import("./device.js").Message} Message */
/** @typedef {import("./device.js").Interrupt} Interrupt */
/** @typedef {import("./device.js").Said} Said */
/** @typedef {import("./device.js").Turn} Turn */
/** @typedef {import("./device.js").Reply} Reply */
/** @typedef {import("./device.js").TurnEvent} TurnEvent */
/** @typedef {import("./log.js").Log} Log */

/**
 * What the page does when something changes.
 * @typedef {object} Page
 * @property {(text: string) => void} announce says something to people who hear the page
 * @property {(text: string, files: File[]) => void} draft puts a text and files back into the composer
 * @property {() => void} changed something is running, or no longer
 * @property {(agent: string | null) => void} held another agent holds the conversation
 * @property {() => void} anew the person wants a new conversation, because this browser lost the old one
 */

/** Milliseconds in which the tab that sends a message takes the lock, before others wait for that. */
const HEAD_START = 1_000;

export class Conversation {
  #log;
  #page;
  #self = "";
  #loaded = false;
  /** Where the next page of the transcript begins. @type {number | string | null} */
  #before = null;
  /** Exchanges whose messages have no reply yet. @type {Map<string, {message: Message, files: File[], exchange: Exchange}>} */
  #open = new Map();
  /** The messages that have replies: another tab may still tell of one, or a person answer a question twice. */
  #answered = /** @type {Set<string>} */ (new Set());
  /** What is to be sent, one message after another. @type {Message[]} */
  #outbox = [];
  /** @type {{message: Message, began: boolean, stopped: boolean, giveUp: AbortController} | null} */
  #current = null;
  /** The question that waits. @type {Interrupt | null} */
  #question = null;

  /** @param {Log} log @param {Page} page */
  constructor(log, page) {
    this.#log = log;
    this.#page = page;
    tabs.listen((what) => this.#hearTab(what));
  }

  /** Whether a turn runs, here or in another tab. */
  get running() {
    return this.#running() !== null;
  }

  /** Whether anything was said. */
  get begun() {
    return this.#log.last > 0;
  }

  /** Whether there is more before what is shown. */
  get hasEarlier() {
    return this.#before !== null;
  }

  /** Shows what was said before, and sends what has no reply yet. Throws a `MoorlineError`. */
  async load() {
    this.#self = await device.ensureDeviceId();
    const [page, session] = await Promise.all([device.transcript(), device.session()]);
    this.#before = page.next;
    this.#place(page.turns);
    this.#hold(session.agent, session.pending);
    this.#loaded = true;
    for (const message of device.unanswered()) {
      const files = await device.filesOf(message.id).catch(() => []); // sending it tells
      if (this.#open.has(message.id)) continue;
      this.#show(message, files);
      this.#outbox.push(message);
    }
    this.#log.greet();
    this.#work();
  }

  /** Shows the turns before those that are shown. */
  async earlier() {
    const page = await device.transcript({ before: this.#before });
    this.#before = page.next;
    this.#place(page.turns);
  }

  /** Shows what happened elsewhere: in other tabs, on other pages of this device, or in recovered turns. */
  async refresh() {
    if (!this.#loaded) return;
    const last = this.#log.last;
    const [page, session] = await Promise.all([device.transcript(), device.session()]);
    const oldest = page.turns.at(-1)?.turn_no ?? 0;
    if (last > 0 && oldest > last + 1) location.reload(); // more was said than a page holds
    this.#place(page.turns);
    this.#hold(session.agent, session.pending);
  }

  /**
   * The person said something, which may answer the question that waits; only a message has files.
   * @param {string} text
   * @param {File[]} files
   */
  say(text, files) {
    this.#send(files.length > 0 ? text : saidTo(text, this.#question), files);
  }

  /** Ends the turn that runs. */
  async stop() {
    const running = this.#running();
    if (running === null) return;
    running.exchange.note("Stopping …");
    const current = this.#current?.message.id === running.message.id ? this.#current : null;
    if (current && (!current.began || !navigator.onLine)) current.giveUp.abort();
    if (current) current.stopped = true; // the reply may be here before the answer to this
    const stopped = await device.stop(running.message.id).catch(() => false);
    if (current) current.stopped = stopped;
    if (!stopped && running.exchange.state === "running") running.exchange.note("");
  }

  /** Sends again what did not reach the server. */
  reconnect() {
    for (const { message, exchange } of this.#open.values()) if (exchange.lost) this.#again(message);
    this.refresh().catch(() => {});
  }

  /** Begins as a new device, which the server may demand; what was not answered can be sent again. */
  async anew() {
    for (const { id, said } of device.unanswered()) {
      if (typeof said === "string") this.#page.draft(said, await device.filesOf(id).catch(() => []));
    }
    device.forget();
    this.#log.clear();
    this.#open.clear();
    this.#outbox.length = 0;
    this.#hold(null, null);
    await this.load();
  }

  /** Deletes everything that was said. */
  async erase() {
    await device.erase();
    tabs.tell({ kind: "erased", device: this.#self });
  }

  // ---- Sending

  /** @param {Said} said @param {File[]} [files] */
  #send(said, files = []) {
    const message = device.keep(said, undefined, files);
    if (this.#open.has(message.id)) return; // an answer that was given already
    if (this.#answered.has(message.id)) return device.discard(message.id);
    this.#show(message, files);
    this.#again(message);
  }

  /** @param {Message} message */
  #again(message) {
    const open = this.#open.get(message.id);
    open?.exchange.begin("waiting");
    tabs.tell({ kind: "sent", device: this.#self, message, files: open?.files ?? [] });
    this.#outbox.push(message);
    this.#work();
  }

  async #work() {
    if (this.#current !== null || !this.#loaded) return;
    let message = this.#outbox.shift();
    while (message && !this.#open.has(message.id)) message = this.#outbox.shift(); // the transcript had it
    if (!message) return;
    const current = { message, began: false, stopped: false, giveUp: new AbortController() };
    this.#current = current;
    this.#page.changed();
    const own = await tabs.sending(message.id, () => this.#converse(current));
    this.#current = null;
    this.#page.changed();
    if (!own) this.#follow(message);
    this.#work();
  }

  /** @param {{message: Message, began: boolean, stopped: boolean, giveUp: AbortController}} current */
  async #converse(current) {
    const { id, said } = current.message;
    const options = { files: this.#open.get(id)?.files ?? [], messageId: id, signal: current.giveUp.signal };
    try {
      for await (const event of device.stream(said, options)) {
        current.began ||= event.type !== "connection_lost";
        const stopped = current.stopped;
        tabs.tell({ kind: "event", device: this.#self, id, event, stopped });
        this.#hear(id, event, stopped);
      }
    } catch (error) {
      if (!(error instanceof device.MoorlineError) && !current.giveUp.signal.aborted) throw error;
      const known =
        error instanceof device.MoorlineError ? error : new device.MoorlineError("Stopped", "", { retryable: true });
      const { kind, message, status, retryable, effectsKept } = known;
      tabs.tell({ kind: "failed", device: this.#self, id, error: { kind, message, status, retryable, effectsKept } });
      this.#failed(id, known);
    }
  }

  /** Another tab sends it; if that one goes away, this one does. @param {Message} message */
  async #follow(message) {
    if (!(await tabs.free(message.id))) return;
    await this.refresh().catch(() => {});
    const left = this.#open.get(message.id);
    if (!left || left.exchange.state === "failed" || this.#current?.message.id === message.id) return;
    this.#outbox.push(message);
    this.#work();
  }

  // ---- What comes of it

  /** @param {string} id @param {TurnEvent} event @param {boolean} stopped */
  #hear(id, event, stopped) {
    const exchange = this.#open.get(id)?.exchange;
    if (!exchange) return;
    if (event.type === "turn_finished") this.#finished(id, exchange, event.reply, stopped);
    else exchange.tell(event);
    if (event.type === "session_changed") this.#page.held(event.lock);
    this.#page.changed();
  }

  /** @param {string} id @param {Exchange} exchange @param {Reply} reply @param {boolean} stopped */
  #finished(id, exchange, reply, stopped) {
    this.#open.delete(id);
    this.#answered.add(id);
    exchange.finish({ ...reply, stopped });
    if (reply.notice !== null) exchange.note(reply.notice);
    if (reply.degraded) exchange.note("Answered without memory: the service is not fully available.");
    const stays = this.#log.settle(exchange, reply.turn_no);
    const who = reply.agent === null ? "" : `${titled(reply.agent)}: `;
    const options = optionsOf(reply.interrupt).map((option) => option.label);
    this.#page.announce(who + reply.text + (options.length > 0 ? ` Choose: ${options.join(", ")}.` : ""));
    this.#ask(reply.interrupt, stays);
    if (reply.recovered.length > 0) this.refresh().catch(() => {});
  }

  /** @param {string} id @param {device.MoorlineError} error */
  #failed(id, error) {
    const open = this.#open.get(id);
    if (!open) return;
    const { message, files, exchange } = open;
    const change = () => {
      this.#drop(id);
      if (typeof message.said === "string") this.#page.draft(message.said, files);
      this.refresh().catch(() => {}); // a question may wait again
    };
    const choices = [];
    if (isRefused(error) && !device.signsIn()) {
      choices.push({ label: "Start a new conversation", main: true, act: () => this.#page.anew() });
    } else {
      if (error.retryable || isRefused(error)) choices.push({ label: "Try again", main: true, act: () => this.#again(message) });
      choices.push({ label: typeof message.said === "string" ? "Change the message" : "Leave it", act: change });
    }
    exchange.lost = error.kind === "ConnectionLost";
    exchange.fail(inWords(error), choices);
    this.#page.announce(inWords(error));
    this.#page.changed();
    if (!exchange.lost) this.refresh().catch(() => {});
  }

  /** @param {string} id */
  #drop(id) {
    device.discard(id);
    const open = this.#open.get(id);
    this.#open.delete(id);
    if (open) this.#log.remove(open.exchange);
    this.#log.greet();
  }

  /** @param {any} what of another tab */
  #hearTab(what) {
    if (what.device !== this.#self) return;
    if (what.kind === "erased") location.reload();
    if (what.kind === "sent" && !this.#answered.has(what.message.id)) {
      const open = this.#open.get(what.message.id);
      if (open) open.exchange.begin("waiting");
      else this.#show(what.message, what.files);
      setTimeout(() => this.#follow(what.message), HEAD_START);
    }
    const exchange = this.#open.get(what.id)?.exchange;
    if (what.kind === "failed") {
      this.#failed(what.id, new device.MoorlineError(what.error.kind, what.error.message, what.error));
    }
    // Who comes in the middle of a turn has not heard its beginning, and waits for the end.
    const whole = exchange?.state === "running" || ["turn_started", "turn_finished"].includes(what.event?.type);
    if (what.kind === "event" && whole) this.#hear(what.id, what.event, what.stopped);
  }

  // ---- What is shown

  /** @param {Message} message @param {File[]} files */
  #show(message, files) {
    const exchange = new Exchange(new Date(message.at));
    exchange.say(textOf(message.said, this.#question), files.map(ofPerson));
    this.#ask(null);
    this.#open.set(message.id, { message, files, exchange });
    this.#log.add(exchange);
    this.#page.changed();
  }

  /** Turns that are not on the page yet. @param {Turn[]} turns newest first */
  #place(turns) {
    const made = [];
    for (const [at, turn] of turns.entries()) {
      if (this.#log.turn(turn.turn_no) || turn.message_ids.includes(this.#current?.message.id ?? "")) continue;
      for (const id of turn.message_ids) {
        device.discard(id);
        this.#answered.add(id);
      }
      const ids = turn.message_ids.filter((id) => this.#open.has(id));
      for (const id of ids) this.#drop(id);
      const exchange = new Exchange(new Date(turn.started_at));
      for (const [number, text] of turn.texts.entries()) {
        exchange.say(textOf(text, turns[at + 1]?.interrupt ?? null), (turn.files[number] ?? []).map(ofServer));
      }
      exchange.turnNo = turn.turn_no;
      exchange.finish({ text: turn.reply, agent: turn.agent, at: new Date(turn.committed_at) });
      made.push(exchange);
    }
    this.#log.place(made);
  }

  /** @param {string | null} agent @param {Interrupt | null} pending */
  #hold(agent, pending) {
    this.#page.held(agent);
    const going = [...this.#open.values()].some(({ exchange }) => exchange.state !== "failed");
    if (!going) this.#ask(pending, this.#log.turn(this.#log.last));
  }

  /** The question that waits now, if any. @param {Interrupt | null} interrupt @param {Exchange} [by] */
  #ask(interrupt, by) {
    if (this.#question?.id === interrupt?.id) return;
    this.#asking?.offer("", []);
    this.#question = interrupt;
    this.#asking = by ?? null;
    const options = optionsOf(interrupt);
    const answer = (/** @type {unknown} */ value) => interrupt && this.#send({ interrupt_id: interrupt.id, value });
    by?.offer(
      "Answers",
      options.map(({ label, value }) => ({ label, act: () => answer(value) })),
    );
    this.#page.changed();
  }

  /** The exchange that asked. @type {Exchange | null} */
  #asking = null;

  #running() {
    const current = this.#current && this.#open.get(this.#current.message.id);
    return current ?? [...this.#open.values()].find(({ exchange }) => exchange.state === "running") ?? null;
  }
}
