/** An exchange on the page: what the person said, and what came of it. It shows what it is told, and decides nothing. */

import { listOf } from "./files.js";
import { nodesOf, spoken, titled } from "./text.js";

/** @typedef {import("./device.js").TurnEvent} TurnEvent */
/** @typedef {import("./files.js").Shown} Shown */
/** @typedef {{label: string, act: () => void, main?: boolean}} Choice */
/** @typedef {"waiting" | "running" | "done" | "failed"} State */

const CLOCK = new Intl.DateTimeFormat(undefined, { hour: "numeric", minute: "2-digit" });

/** Tools with which an agent decides about the session; what comes of them is told by events of their own. */
const CONTROL = new Set(["hand_over", "end_session"]);

export class Exchange {
  /** @type {number | null} */
  turnNo = null;
  /** @type {State} */
  state = "waiting";
  /** The reply so far. */
  text = "";
  /** Whether it failed because the server could not be reached. */
  lost = false;

  #day = element("p", "day");
  #said = element("div", "said");
  #who = element("p", "who");
  #name = element("span", "name");
  #time = document.createElement("time");
  #tools = element("ul", "tools");
  #text = element("div", "text");
  #live = document.createTextNode("");
  #note = element("p", "note");
  #choices = element("div", "choices");
  #reply = element("div", "reply");

  /** @param {Date} at when it was said */
  constructor(at) {
    this.at = at;
    this.element = document.createElement("article");
    this.element.className = "exchange";
    this.#text.dir = "auto";
    this.#tools.setAttribute("aria-label", "Tools");
    this.#who.append(this.#name, this.#time);
    this.#reply.append(this.#who, this.#tools, this.#text, this.#note, this.#choices);
    this.#day.hidden = true;
    this.element.append(this.#day, this.#said, this.#reply);
    this.#timed(at);
    this.#show();
  }

  /** @param {string} text @param {Shown[]} files */
  say(text, files) {
    const bubble = element("p", "bubble");
    bubble.dir = "auto";
    const you = element("span", "unseen");
    you.textContent = "You: ";
    bubble.append(you, ...nodesOf(text));
    if (text || files.length === 0) this.#said.append(bubble);
    if (files.length > 0) this.#said.append(listOf(files));
  }

  /** What the person said in another exchange belongs to this one. @param {Exchange} other */
  absorb(other) {
    this.#said.append(...other.#said.childNodes);
  }

  /** The day that begins with it, or null if it goes on. @param {string | null} day */
  begins(day) {
    this.#day.textContent = day;
    this.#day.hidden = day === null;
  }

  /** Everything that was shown of the turn is void. @param {State} state */
  begin(state) {
    this.state = state;
    this.lost = false;
    this.#withdraw();
    this.#tools.replaceChildren();
    this.#choices.replaceChildren();
    this.note("");
    this.#show();
  }

  /** @param {TurnEvent} event */
  tell(event) {
    switch (event.type) {
      case "turn_started":
        this.begin("running");
        break;
      case "agent_started":
        this.#by(event.agent ?? null);
        break;
      case "text_delta":
        this.#write(event.text);
        break;
      case "text_withdrawn":
        this.#withdraw();
        break;
      case "tool_started":
        if (!CONTROL.has(event.name)) this.#use(event.call_id, event.name);
        break;
      case "tool_finished":
        this.#used(event.call_id, event.refused !== null);
        break;
      case "handed_over":
        this.note(`Handed over to ${titled(event.to)}`);
        break;
      case "connection_lost":
        this.note(event.online ? "The connection was lost. Trying again …" : "You are offline. This goes on when you are back.");
        break;
      default: // of types that come later, nothing is shown
    }
    this.#show();
  }

  /**
   * The turn is committed.
   * @param {{text: string, agent: string | null, at?: Date, stopped?: boolean}} reply
   */
  finish({ text, agent, at, stopped = false }) {
    this.state = "done";
    this.text = text;
    this.#text.replaceChildren(...nodesOf(text));
    this.#by(agent);
    this.#timed(at ?? new Date());
    this.#choices.replaceChildren();
    for (const tool of this.#tools.querySelectorAll(".running")) tool.remove(); // it asked, and runs again with the answer
    this.note(stopped ? "Stopped" : "");
    this.#show();
  }

  /** @param {string} why @param {Choice[]} choices */
  fail(why, choices) {
    this.state = "failed";
    this.#withdraw();
    this.#tools.replaceChildren();
    this.note(why);
    this.#offer("What now", choices);
    this.#show();
  }

  /** Buttons under the reply. @param {string} label @param {Choice[]} choices */
  offer(label, choices) {
    this.#offer(label, choices);
  }

  /** @param {string} text */
  note(text) {
    this.#note.textContent = text;
    this.#note.hidden = text === "";
  }

  /** @param {string} label @param {Choice[]} choices */
  #offer(label, choices) {
    this.#choices.setAttribute("role", "group");
    this.#choices.setAttribute("aria-label", label);
    this.#choices.replaceChildren(
      ...choices.map(({ label: name, act, main }) => {
        const button = document.createElement("button");
        button.type = "button";
        button.textContent = name;
        button.dir = "auto";
        if (main) button.className = "main";
        button.addEventListener("click", act);
        return button;
      }),
    );
  }

  /** @param {string} text */
  #write(text) {
    this.text += text;
    if (!this.#live.isConnected) this.#text.replaceChildren(this.#live);
    this.#live.appendData(text);
  }

  #withdraw() {
    this.text = "";
    this.#live.data = "";
    this.#text.replaceChildren();
  }

  /** @param {string | null} agent */
  #by(agent) {
    this.#name.textContent = agent === null ? "" : titled(agent);
  }

  /** @param {string} call @param {string} name */
  #use(call, name) {
    this.note("");
    const tool = document.createElement("li");
    tool.dataset.call = call;
    tool.className = "running";
    const state = element("span", "unseen");
    state.textContent = ", running";
    tool.append(spoken(name), state);
    this.#tools.append(tool);
  }

  /** @param {string} call @param {boolean} refused */
  #used(call, refused) {
    const tool = [...this.#tools.children].find((each) => /** @type {HTMLElement} */ (each).dataset.call === call);
    if (!tool) return;
    tool.className = refused ? "refused" : "done";
    /** @type {Element} */ (tool.lastElementChild).textContent = refused ? ", refused" : ", done";
  }

  /** @param {Date} at */
  #timed(at) {
    this.#time.dateTime = at.toISOString();
    this.#time.textContent = CLOCK.format(at);
  }

  #show() {
    this.element.dataset.state = this.state;
    this.#reply.setAttribute("aria-busy", String(this.state === "running" || this.state === "waiting"));
    this.#time.hidden = this.state !== "done";
    this.#tools.hidden = this.#tools.childElementCount === 0;
    const busy = this.state === "running" || this.state === "waiting";
    this.#text.classList.toggle("thinking", busy && this.text === "");
    this.#note.classList.toggle("problem", this.state === "failed");
  }
}

/** @param {string} name @param {string} className */
function element(name, className) {
  const made = document.createElement(name);
  made.className = className;
  return made;
}
