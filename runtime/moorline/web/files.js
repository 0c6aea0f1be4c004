/** Files as the page shows them: pictures small, others by name, and every one as a download. */

import { file as fromServer } from "./device.js";

/** @typedef {{name: string, type: string, content: () => Promise<Blob>}} Shown */

/** What is shown as a picture: SVG is not, in which scripts may be. */
const PICTURES = new Set(["image/png", "image/jpeg", "image/gif", "image/webp", "image/avif"]);

/** How the names of files end that a system opens as what they are. @type {Record<string, RegExp>} */
const ENDINGS = {
  "image/png": /\.png$/i,
  "image/jpeg": /\.(jpg|jpeg)$/i,
  "image/gif": /\.gif$/i,
  "image/webp": /\.webp$/i,
  "image/avif": /\.avif$/i,
  "application/pdf": /\.pdf$/i,
  "text/plain": /\.(txt|csv|json|log|md|tsv)$/i,
};

/** Milliseconds in which a browser has begun with a download. */
const BEGUN = 60_000;

/** @type {WeakMap<Element, () => void>} */
const loading = new WeakMap();
const inView = new IntersectionObserver((entries) => {
  for (const { target } of entries.filter((entry) => entry.isIntersecting)) {
    inView.unobserve(target);
    loading.get(target)?.();
  }
});

/** A file that the person has chosen. @param {File} file @returns {Shown} */
export function ofPerson(file) {
  return { name: file.name, type: file.type, content: async () => file };
}

/** A file that the server keeps. @param {import("./device.js").KeptFile} kept @returns {Shown} */
export function ofServer({ hash, name, type }) {
  return { name, type, content: () => fromServer(hash) };
}

/** What it is called, if it has a name. @param {{name: string, type: string}} file */
export function calledBy({ name, type }) {
  return name || (type.startsWith("image/") ? "picture" : "file");
}

/** The files of a message. @param {Shown[]} files */
export function listOf(files) {
  const list = document.createElement("ul");
  list.className = "files";
  list.setAttribute("aria-label", "Your files");
  list.append(...files.map(itemOf));
  return list;
}

/**
 * A small picture, loaded when it comes into view; if it is none, `words` stand in its place.
 * @param {Shown} file
 * @param {string} words
 * @returns {string | HTMLImageElement}
 */
export function thumbnail(file, words) {
  if (!PICTURES.has(file.type)) return words;
  const picture = document.createElement("img");
  picture.alt = "";
  const broken = () => picture.replaceWith(words);
  picture.addEventListener("load", () => URL.revokeObjectURL(picture.src));
  picture.addEventListener("error", broken);
  const load = async () => {
    picture.src = URL.createObjectURL(await file.content());
  };
  loading.set(picture, () => load().catch(broken));
  inView.observe(picture);
  return picture;
}

/** @param {Shown} file */
function itemOf(file) {
  const item = document.createElement("li");
  const button = document.createElement("button");
  button.type = "button";
  button.dir = "auto";
  button.title = calledBy(file);
  button.setAttribute("aria-label", `Download ${calledBy(file)}`);
  button.append(thumbnail(file, calledBy(file)));
  const problem = document.createElement("p");
  problem.className = "problem";
  problem.setAttribute("role", "alert");
  problem.hidden = true;
  button.addEventListener("click", () => {
    problem.hidden = true;
    download(file).catch((error) => {
      problem.textContent = error.status === 404 ? "It is no longer kept." : "It cannot be loaded. Try again.";
      problem.hidden = false;
    });
  });
  item.append(button, problem);
  return item;
}

/** @param {Shown} file */
async function download(file) {
  const content = await file.content();
  // Of no type, so that nothing in it is ever a page of this origin.
  const address = URL.createObjectURL(new Blob([content], { type: "application/octet-stream" }));
  const link = document.createElement("a");
  link.href = address;
  link.download = savedAs(file);
  link.click();
  setTimeout(() => URL.revokeObjectURL(address), BEGUN);
}

/** Its name, which ends like those of its type: a picture that is called `page.html` is saved as one. @param {Shown} file */
function savedAs(file) {
  const name = calledBy(file);
  const ending = ENDINGS[file.type];
  if (!ending || ending.test(name)) return name;
  return `${name}.${file.type === "text/plain" ? "txt" : file.type.split("/")[1]}`;
}
