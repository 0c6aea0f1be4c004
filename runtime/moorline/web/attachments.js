/** The files that go with the next message: chosen, pasted or dropped, shown, and checked before they are sent. */

import { calledBy, ofPerson, thumbnail } from "./files.js";

/** @typedef {import("./device.js").Limits} Limits */

const MEGABYTES = new Intl.NumberFormat(undefined, { style: "unit", unit: "megabyte", maximumFractionDigits: 2 });

export class Attachments {
  /** Each with what shows it. @type {Map<File, HTMLElement>} */
  #chosen = new Map();
  /** @type {Limits | null} */
  #limits = null;
  #parts;
  #changed;

  /**
   * @param {{button: HTMLButtonElement, input: HTMLInputElement, list: HTMLElement, problem: HTMLElement}} parts
   * @param {(said: string) => void} changed is told what has changed, in words
   */
  constructor(parts, changed) {
    this.#parts = parts;
    this.#changed = changed;
    const { button, input } = parts;
    button.addEventListener("click", () => input.click());
    input.addEventListener("change", () => {
      this.add([...(input.files ?? [])]);
      input.value = ""; // so that the same file can be chosen again
    });
  }

  /** Whether there are any. */
  get any() {
    return this.#chosen.size > 0;
  }

  /** What the server accepts. @param {Limits} limits */
  limit(limits) {
    this.#limits = limits;
    const types = limits.file_types.includes("text/plain") ? [...limits.file_types, "text/*"] : limits.file_types;
    this.#parts.input.accept = types.join(",");
    this.#parts.button.hidden = limits.files_max === 0;
  }

  /** Adds those that the server will accept, and says what is wrong with the others. @param {File[]} files */
  add(files) {
    const problems = [];
    const added = [];
    for (const file of files) {
      const problem = this.#problemOf(file);
      if (problem) {
        problems.push(problem);
        continue;
      }
      this.#put(file);
      added.push(calledBy(file));
      const unread = () => this.#remove(file) && this.#tell([`${calledBy(file)} cannot be read.`]);
      file.slice(0, 1).arrayBuffer().catch(unread); // a folder, or gone
    }
    this.#tell(problems);
    this.#show(added.length > 0 ? `Attached: ${added.join(", ")}` : "");
  }

  /** Those of a message that was not sent. @param {File[]} files */
  restore(files) {
    for (const file of files) this.#put(file);
    this.#show("");
  }

  /** Gives them away, with the message that is sent. */
  take() {
    const files = [...this.#chosen.keys()];
    for (const file of files) this.#remove(file);
    this.#tell([]);
    return files;
  }

  /** @param {File} file */
  #problemOf(file) {
    const name = calledBy(file);
    const limits = this.#limits;
    if (limits === null) return `${name} was not attached: try again in a moment.`; // what is accepted is not known yet
    if (limits.files_max === 0) return `Files cannot be sent here: ${name} was not attached.`;
    if (!isAccepted(file.type, limits.file_types)) {
      return `${name} cannot be sent. What can be sent: ${limits.file_types.map(shortly).join(", ")}.`;
    }
    if (file.size === 0) return `${name} is empty.`;
    if (file.size > limits.file_max) {
      return `${name} is too large: it has ${inMegabytes(file.size)}, and ${inMegabytes(limits.file_max)} can be sent.`;
    }
    if (this.#chosen.size >= limits.files_max) {
      return `${name} was not attached: a message can have ${limits.files_max} files. Send it with the next one.`;
    }
    const total = [...this.#chosen.keys()].reduce((sum, each) => sum + each.size, file.size);
    if (total > limits.files_total_max) {
      const most = inMegabytes(limits.files_total_max);
      return `${name} was not attached: the files of a message can have ${most} together. Send it with the next one.`;
    }
    return null;
  }

  /** @param {File} file */
  #put(file) {
    const chip = this.#chip(file);
    this.#chosen.set(file, chip);
    this.#parts.list.append(chip);
  }

  /** @param {File} file @returns {boolean} whether it was there */
  #remove(file) {
    this.#chosen.get(file)?.remove();
    const was = this.#chosen.delete(file);
    this.#show("");
    return was;
  }

  /** @param {string} said */
  #show(said) {
    this.#parts.list.hidden = !this.any;
    this.#changed(said);
  }

  /** @param {File} file */
  #chip(file) {
    const chip = document.createElement("li");
    const name = document.createElement("span");
    name.className = "name";
    name.dir = "auto";
    name.textContent = calledBy(file);
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = "×";
    button.setAttribute("aria-label", `Remove ${calledBy(file)}`);
    button.addEventListener("click", () => {
      const next = chip.nextElementSibling ?? chip.previousElementSibling;
      this.#tell([]);
      this.#remove(file);
      this.#changed(`Removed: ${calledBy(file)}`);
      (next?.querySelector("button") ?? this.#parts.button).focus();
    });
    chip.append(thumbnail(ofPerson(file), ""), name, button);
    return chip;
  }

  /** @param {string[]} problems */
  #tell(problems) {
    const { problem } = this.#parts;
    problem.textContent = problems.join(" ");
    problem.hidden = problems.length === 0;
  }
}

/**
 * Whether the server may accept it; it reads from the bytes what a file is, whose name says little to a browser.
 * @param {string} type
 * @param {string[]} accepted
 */
function isAccepted(type, accepted) {
  if (type === "" || accepted.includes(type)) return true;
  return accepted.includes("text/plain") && (type.startsWith("text/") || type === "application/json");
}

/** @param {string} type such as `image/png` */
function shortly(type) {
  return type === "text/plain" ? "text" : type.replace(/^.*[/.]/, "").toUpperCase();
}

/** @param {number} bytes */
function inMegabytes(bytes) {
  return MEGABYTES.format(Math.max(bytes / 1e6, 0.01));
}
