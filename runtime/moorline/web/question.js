/** Questions that agents ask, and what a person's words answer. */

/** @typedef {import("./device.js").Interrupt} Interrupt */
/** @typedef {import("./device.js").Said} Said */
/** @typedef {{label: string, value: unknown}} Option */

const LABELS = ["label", "title", "text", "name"];

/**
 * The options of a question whose value is `{"options": […]}`. An option is a text, a number or yes and no, or has a
 * label and a value.
 * @param {Interrupt | null} interrupt
 * @returns {Option[]}
 */
export function optionsOf(interrupt) {
  const options = /** @type {any} */ (interrupt?.value)?.options;
  if (!Array.isArray(options)) return [];
  const found = options.map(optionOf);
  return found.every((option) => option !== null) ? found : []; // of a question only half understood, none
}

/** @param {any} option @returns {Option | null} */
function optionOf(option) {
  if (option === null || typeof option !== "object") {
    const label = typeof option === "boolean" ? (option ? "Yes" : "No") : String(option ?? "").trim();
    return label ? { label, value: option } : null;
  }
  const label = LABELS.map((name) => option[name]).find((each) => typeof each === "string" && each.trim());
  return label ? { label, value: option.value ?? option.id ?? option } : null;
}

/**
 * What a person says while a question waits. The label of an option is that option. If the question has neither options
 * nor a schema, any text is an answer. Anything else is a message, of which the server finds out whether it answers.
 * @param {string} text
 * @param {Interrupt | null} interrupt
 * @returns {Said}
 */
export function saidTo(text, interrupt) {
  if (interrupt === null) return text;
  const options = optionsOf(interrupt);
  if (/** @type {any} */ (interrupt.value)?.schema) return text;
  if (options.length === 0) return { interrupt_id: interrupt.id, value: text };
  const meant = options.find((option) => folded(option.label) === folded(text));
  return meant ? { interrupt_id: interrupt.id, value: meant.value } : text;
}

/** @param {string} text */
function folded(text) {
  return text.trim().toLocaleLowerCase();
}

/**
 * What was said, as the person saw it: of an option its label.
 * @param {Said} said
 * @param {Interrupt | null} interrupt
 * @returns {string}
 */
export function textOf(said, interrupt) {
  const value = typeof said === "string" ? said : said.value;
  const text = typeof value === "string" ? value : JSON.stringify(value);
  const chosen = optionsOf(interrupt).find((option) => sameJson(option.value, text));
  return chosen ? chosen.label : text;
}

/** The transcript has a text as it is, and other values as JSON. @param {unknown} value @param {string} text */
function sameJson(value, text) {
  if (typeof value === "string") return value === text;
  try {
    return JSON.stringify(value) === JSON.stringify(JSON.parse(text));
  } catch {
    return false;
  }
}
