/** The exchanges on the page, in the order of their turns. Keeps the place where a person reads. */

import { titled } from "./text.js";

/** @typedef {import("./exchange.js").Exchange} Exchange */

const DAY = new Intl.DateTimeFormat(undefined, { weekday: "long", day: "numeric", month: "long" });
const NEARBY = new Intl.RelativeTimeFormat(undefined, { numeric: "auto" });
/** Pixels above the end within which a person still reads the end. */
const NEAR = 48;

export class Log {
  /** @type {Map<number, Exchange>} */
  #turns = new Map();
  /** All of them, in order. @type {Exchange[]} */
  #all = [];
  #atEnd = true;
  /** Where it was scrolled to. */
  #top = 0;
  #parts;

  /**
   * @param {{scroll: HTMLElement, log: HTMLElement, empty: HTMLElement, latest: HTMLButtonElement}} parts
   */
  constructor(parts) {
    this.#parts = parts;
    const { scroll, log, latest } = parts;
    scroll.addEventListener("scroll", () => this.#looked(), { passive: true });
    const grown = new ResizeObserver(() => (this.#atEnd ? this.toEnd() : this.#looked()));
    for (const each of [log, scroll]) grown.observe(each);
    latest.addEventListener("click", () => {
      this.toEnd();
      scroll.focus();
    });
  }

  /** The exchange of a turn, if it is on the page. @param {number} turnNo */
  turn(turnNo) {
    return this.#turns.get(turnNo);
  }

  /** The last turn on the page, or 0. */
  get last() {
    return Math.max(0, ...this.#turns.keys());
  }

  /** The person said something: it is at the end, and they look there. @param {Exchange} exchange */
  add(exchange) {
    this.#all.push(exchange);
    this.#atEnd = true;
    this.#show();
  }

  /** Exchanges whose turns are known. @param {Exchange[]} exchanges */
  place(exchanges) {
    const { scroll } = this.#parts;
    const fromEnd = scroll.scrollHeight - scroll.scrollTop;
    for (const exchange of exchanges) this.#insert(exchange);
    this.#show();
    if (!this.#atEnd) scroll.scrollTop = scroll.scrollHeight - fromEnd;
  }

  /**
   * An exchange got its turn. If another message of that turn has an exchange already, that one takes it over.
   * @param {Exchange} exchange @param {number} turnNo @returns {Exchange} the one that stays
   */
  settle(exchange, turnNo) {
    if (turnNo === 0) return exchange; // answered without a turn
    const other = this.#turns.get(turnNo);
    if (other && other !== exchange) {
      other.absorb(exchange);
      this.remove(exchange);
      return other;
    }
    exchange.turnNo = turnNo;
    const others = this.#all.filter((each) => each.turnNo !== null && each !== exchange);
    const before = others.filter((each) => this.#all.indexOf(each) < this.#all.indexOf(exchange));
    // One that failed, and was tried again after others, goes to its turn's place.
    if (others.some((each) => Number(each.turnNo) < turnNo !== before.includes(each))) this.#insert(exchange);
    this.#turns.set(turnNo, exchange);
    this.#show();
    return exchange;
  }

  /** Puts it behind the last turn before its own. @param {Exchange} exchange */
  #insert(exchange) {
    const turnNo = Number(exchange.turnNo);
    this.#turns.set(turnNo, exchange);
    this.#all = this.#all.filter((each) => each !== exchange);
    const at = this.#all.findLastIndex((each) => each.turnNo !== null && each.turnNo < turnNo);
    this.#all.splice(at + 1, 0, exchange);
  }

  /** @param {Exchange} exchange */
  remove(exchange) {
    this.#all = this.#all.filter((each) => each !== exchange);
    exchange.element.remove();
    this.#show();
  }

  clear() {
    this.#turns.clear();
    this.#all = [];
    this.#parts.log.replaceChildren();
  }

  /** Says so if nothing was said yet. */
  greet() {
    this.#parts.empty.hidden = this.#all.length > 0;
  }

  toEnd() {
    const { scroll } = this.#parts;
    scroll.scrollTop = scroll.scrollHeight;
    this.#looked();
  }

  #looked() {
    const { scroll, latest } = this.#parts;
    const near = scroll.scrollHeight - scroll.scrollTop - scroll.clientHeight < NEAR;
    // Who was at the end stays there while it grows, until they scroll up.
    this.#atEnd = near || (this.#atEnd && scroll.scrollTop >= this.#top);
    this.#top = scroll.scrollTop;
    latest.hidden = this.#atEnd;
  }

  /** Brings the page in order, moving only what is not in its place. */
  #show() {
    const { log, empty } = this.#parts;
    let day = "";
    let at = log.firstElementChild;
    for (const exchange of this.#all) {
      const own = dayOf(exchange.at);
      exchange.begins(own === day ? null : own);
      day = own;
      if (exchange.element === at) at = at.nextElementSibling;
      else log.insertBefore(exchange.element, at);
    }
    if (this.#all.length > 0) empty.hidden = true;
    if (this.#atEnd) this.toEnd();
  }
}

/** Today and yesterday have names of their own. @param {Date} at */
function dayOf(at) {
  const days = Math.round((new Date(at).setHours(0, 0, 0, 0) - new Date().setHours(0, 0, 0, 0)) / 86_400_000);
  return days === 0 || days === -1 ? titled(NEARBY.format(days, "day")) : DAY.format(at);
}
