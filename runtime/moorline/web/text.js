/** What people and models wrote, as nodes: text stays text, and only addresses of the web become links. */

const ADDRESS = /\bhttps?:\/\/[^\s<>"'`]+/gi;

/**
 * @param {string} text
 * @returns {(string | HTMLAnchorElement)[]}
 */
export function nodesOf(text) {
  const nodes = [];
  let end = 0;
  for (const match of text.matchAll(ADDRESS)) {
    const address = withoutPunctuation(match[0]);
    if (!URL.canParse(address)) continue;
    nodes.push(text.slice(end, match.index), link(address));
    end = match.index + address.length;
  }
  nodes.push(text.slice(end));
  return nodes;
}

/**
 * A name of the program's, as a person reads it: `find_slots` is "find slots".
 * @param {string} name
 */
export function spoken(name) {
  return name.replace(/[_\s]+/g, " ").trim();
}

/** @param {string} name */
export function titled(name) {
  const words = spoken(name);
  return words.charAt(0).toUpperCase() + words.slice(1);
}

/** What ends a sentence around an address is not part of it. @param {string} address */
function withoutPunctuation(address) {
  let kept = address.replace(/[.,;:!?*_~]+$/, "");
  while (/[)\]}]$/.test(kept) && !balanced(kept)) kept = kept.slice(0, -1).replace(/[.,;:!?*_~]+$/, "");
  return kept;
}

/** @param {string} address */
function balanced(address) {
  const count = (/** @type {string} */ signs) => [...address].filter((sign) => signs.includes(sign)).length;
  return count("([{") >= count(")]}");
}

/** @param {string} address */
function link(address) {
  const anchor = document.createElement("a");
  anchor.href = address;
  anchor.rel = "noopener noreferrer";
  anchor.target = "_blank";
  anchor.textContent = address;
  return anchor;
}
