// The upload page: gather, show what it is, warn, send, and say what is stored.
import { identify, plainName } from "./headers.js";
import { Sender } from "./send.js";
import { entries } from "./zip.js";

const page = document.getElementById("upload");
const byId = (id) => document.getElementById(id);
const exam = { number: page.dataset.number, name: page.dataset.name, born: page.dataset.born };
const files = new Map(); // by SOP Instance UID; of several with other bytes, by a number behind it too
const skipped = new Map(); // reason -> count
let active = null, failures = 0, samples = [];

const bytes = (n) => (n >= 2 ** 30 ? `${(n / 2 ** 30).toFixed(1)} GB` : n >= 2 ** 20 ? `${(n / 2 ** 20).toFixed(1)} MB` : `${Math.ceil(n / 1024)} kB`);
const element = (name, values = {}, ...inside) => {
  const made = Object.assign(document.createElement(name), values);
  made.append(...inside);
  return made;
};
// A cell that says on a phone, where the table has no head, what it shows.
const cell = (label, values, ...inside) => {
  const made = element("td", values, ...inside);
  made.dataset.label = label;
  return made;
};
const day = (date) => date.replace(/^(\d{4})(\d\d)(\d\d)$/, "$1-$2-$3");
const say = (words) => { byId("said").textContent = words; };

// --- gathering -----------------------------------------------------------------------------

async function* dropped(items) {
  const entriesOf = [...items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
  while (entriesOf.length) {
    const entry = entriesOf.shift();
    if (entry.isFile) { yield await new Promise((done, failed) => { entry.file(done, failed); }); continue; }
    const reader = entry.createReader();
    for (;;) {
      const some = await new Promise((done, failed) => { reader.readEntries(done, failed); });
      if (!some.length) break;
      entriesOf.push(...some);
    }
  }
}

async function* sources(found) {
  for await (const file of found) {
    const start = new Uint8Array(await file.slice(0, 4).arrayBuffer());
    if (String.fromCharCode(...start) !== "PK\u0003\u0004") {
      yield { path: file.webkitRelativePath || file.name, size: file.size, changed: file.lastModified, first: (n) => file.slice(0, n).arrayBuffer(), blob: async () => file };
      continue;
    }
    try {
      for (const entry of await entries(file)) {
        yield { path: `${file.name}/${entry.name}`, size: entry.size, changed: file.lastModified, first: (n) => entry.first(n), blob: () => entry.blob() };
      }
    } catch (error) {
      skip(error.message);
    }
  }
}

const skip = (reason) => skipped.set(reason, (skipped.get(reason) || 0) + 1);

const STEP = 4 * 2 ** 20;
async function sameDataset(one, other) {
  if (one.path === other.path && one.size === other.size && one.changed === other.changed) return true; // chosen twice
  const length = one.size - one.dataset;
  if (length !== other.size - other.dataset) return false;
  const whole = await Promise.all([one.blob(), other.blob()]);
  for (let at = 0; at < length; at += STEP) {
    const parts = [one, other].map((file, n) => whole[n].slice(file.dataset + at, file.dataset + at + STEP).arrayBuffer());
    const [left, right] = (await Promise.all(parts)).map((part) => new Uint8Array(part));
    if (left.length !== right.length || left.some((byte, n) => byte !== right[n])) return false;
  }
  return true;
}

// Other bytes under the same SOP Instance UID are sent too: RSO keeps both, and asks a person.
async function keep(file) {
  for (let turn = 0; ; turn += 1) {
    const key = turn ? `${file.uid} ${turn}` : file.uid;
    const there = files.get(key);
    if (!there) { files.set(key, file); return; }
    if (await sameDataset(there, file)) return;
  }
}

async function gather(found) {
  let count = 0;
  const waiting = new Set();
  const look = async (source) => {
    try {
      const header = await identify(source.first);
      if (header.skip) skip(header.skip);
      else await keep({ ...source, ...header, state: "chosen", reason: "", sent: 0 });
    } catch {
      skip("could not be read");
    }
    count += 1;
    if (count % 25 === 0) say(`Looking at files … ${count}`);
  };
  for await (const source of sources(found)) {
    const task = look(source).finally(() => waiting.delete(task));
    waiting.add(task);
    if (waiting.size >= 8) await Promise.race(waiting);
  }
  await Promise.all(waiting);
  show();
}

// --- showing -------------------------------------------------------------------------------

function groups() {
  const found = new Map();
  for (const file of files.values()) {
    const key = `${file.name}|${file.patientId}|${file.born}|${file.study}`;
    if (!found.has(key)) found.set(key, { key, ...patientOf(file), study: file.study, description: file.description, modality: file.modality, date: file.date, files: [] });
    found.get(key).files.push(file);
  }
  return [...found.values()];
}
const patientOf = (file) => ({ name: file.name, patientId: file.patientId, born: file.born, who: `${plainName(file.name)}|${file.born}` });

function differences(group) {
  const said = [];
  if (group.patientId.replaceAll("-", "").toUpperCase() === exam.number) {
    if (exam.born && group.born && group.born !== exam.born) said.push("the birth date differs from the exam's");
    return said;
  }
  if (exam.name && plainName(group.name) !== plainName(exam.name)) said.push(`the patient's name differs from the exam's: ${group.name || "none"}`);
  if (exam.born && group.born && group.born !== exam.born) said.push("the birth date differs from the exam's");
  return said;
}

const chosen = new Map(); // group key -> whether it is sent
function show() {
  const all = groups();
  const people = new Set(all.map((group) => group.who));
  const studies = new Set(all.map((group) => group.study));
  const body = byId("groups");
  body.replaceChildren();
  for (const group of all) {
    const problems = differences(group);
    if (!chosen.has(group.key)) chosen.set(group.key, problems.length === 0);
    const tick = element("input", { type: "checkbox", checked: chosen.get(group.key), disabled: active !== null });
    tick.addEventListener("change", () => { chosen.set(group.key, tick.checked); ready(); });
    const label = element("label", { className: "tick" }, tick, ` ${group.name.replaceAll("^", " ") || "no name"}`);
    const bar = element("progress", { max: 1, value: 0 });
    bar.setAttribute("aria-label", `progress of ${group.modality} ${group.description}`);
    const row = element("tr", {},
      element("td", {}, label), cell("Born", {}, day(group.born) || "not known"),
      cell("Study", {}, `${group.modality} ${group.description || ""} ${day(group.date)}`.trim()),
      cell("Images", { className: "n" }, String(group.files.length)),
      cell("Size", { className: "n" }, bytes(group.files.reduce((sum, file) => sum + file.size, 0))),
      cell("Progress", {}, bar));
    row.dataset.key = group.key;
    if (problems.length) row.firstChild.append(element("p", { className: "problem" }, `${problems.join("; ")}. Tick it only if these images belong to this exam.`));
    body.append(row);
  }
  const warnings = [];
  if (people.size > 1) warnings.push(`These files are of ${people.size} patients.`);
  if (studies.size > 1) warnings.push(`These files are of ${studies.size} Studies.`);
  byId("warning").hidden = !warnings.length;
  byId("warning").textContent = `${warnings.join(" ")} Only what is ticked is sent to this exam.`;
  const left = [...skipped].map(([reason, count]) => `${count} ${reason}`).join(", ");
  say(files.size ? `${files.size} images found.${left ? ` Skipped: ${left}.` : ""}` : `No DICOM images found.${left ? ` Skipped: ${left}.` : ""}`);
  byId("found").hidden = !files.size;
  ready();
}

const wanted = () => groups().filter((group) => chosen.get(group.key)).flatMap((group) => group.files);
function ready() {
  const count = wanted().filter((file) => file.state !== "stored").length;
  byId("start").disabled = active !== null || !count;
  const word = failures ? `Send the ${count} that failed again` : `Send ${count} images`;
  byId("start").textContent = count ? word : "Nothing is left to send";
}

let due = false;
function draw() {
  if (due) return;
  due = true;
  requestAnimationFrame(() => {
    due = false;
    const sending = wanted();
    const total = sending.reduce((sum, file) => sum + file.size, 0);
    const sent = sending.reduce((sum, file) => sum + file.sent, 0);
    const stored = sending.filter((file) => file.state === "stored").length;
    for (const row of byId("groups").children) {
      const own = groupFiles.get(row.dataset.key) || [];
      const size = own.reduce((sum, file) => sum + file.size, 0);
      row.querySelector("progress").value = size ? own.reduce((sum, file) => sum + file.sent, 0) / size : 0;
    }
    byId("overall").value = total ? sent / total : 0;
    byId("numbers").textContent = `${stored} of ${sending.length} stored safely · ${bytes(sent)} of ${bytes(total)}${pace(sent, total)}`;
  });
}
const groupFiles = new Map();

function pace(sent, total) {
  const at = performance.now() / 1000;
  samples = [...samples.filter(([when]) => at - when < 10), [at, sent]];
  const [first, then] = samples[0];
  const speed = at > first ? (sent - then) / (at - first) : 0;
  if (!active || speed <= 0) return "";
  const left = Math.ceil((total - sent) / speed);
  return ` · ${bytes(speed)}/s · ${left > 90 ? `${Math.ceil(left / 60)} min` : `${left} s`} left`;
}

function list() {
  if (!byId("files").open) return;
  const rows = [...files.values()].map((file) => element("tr", {}, element("td", {}, file.path), cell("State", { className: `state ${{ stored: "delivered", failed: "stopped", sending: "sending" }[file.state] || ""}` }, file.state), cell("Reason", {}, file.reason)));
  byId("rows").replaceChildren(...rows);
}

// --- sending -------------------------------------------------------------------------------

async function start() {
  const sending = wanted();
  for (const group of groups()) groupFiles.set(group.key, chosen.get(group.key) ? group.files : []);
  samples = [];
  active = new Sender(exam.number, () => document.body.dataset.csrf || page.dataset.csrf, {
    // Images that go out are work: the session of who sends them goes on.
    moved: (file, sent) => { file.sent = sent; document.dispatchEvent(new Event("rso:use")); draw(); },
    state: (file, word, reason) => { Object.assign(file, { state: word, reason }); draw(); },
    lost: (pause, reason) => { byId("lost-line").hidden = pause === null; byId("lost-line").textContent = `${reason ? `RSO is busy (${reason})` : "The connection is lost"}; trying again in ${pause} seconds. Nothing that was stored is sent twice.`; },
  });
  for (const file of sending) if (file.state !== "stored") Object.assign(file, { state: "waiting", reason: "", sent: 0 });
  show();
  byId("progress").hidden = false;
  byId("receipt").hidden = true;
  draw();
  let problem = "";
  try {
    await active.run(sending);
  } catch (error) {
    problem = error.message;
  }
  active = null;
  const stored = sending.filter((file) => file.state === "stored").length;
  failures = sending.length - stored;
  show();
  draw();
  list();
  const receipt = byId("receipt");
  receipt.hidden = false;
  receipt.className = failures ? "alert" : "good";
  receipt.textContent = failures
    ? `${stored} of ${sending.length} stored safely. ${failures} were not: ${problem || [...new Set(sending.map((file) => file.reason).filter(Boolean))].slice(0, 3).join("; ")}.`
    : `${stored} of ${sending.length} stored safely. You may close this page.`;
  receipt.focus();
}

async function picked(input) {
  if (!input.files.length || active) return;
  const found = [...input.files];
  say(`Looking at ${found.length} files …`);
  await gather(found);
  input.value = "";
}
for (const id of ["pick", "folder"]) {
  byId(id).addEventListener("change", (event) => picked(event.target));
  picked(byId(id)); // chosen before this script was there
}
byId("start").addEventListener("click", start);
byId("files").addEventListener("toggle", list);
const zone = byId("drop");
for (const kind of ["dragover", "dragenter"]) zone.addEventListener(kind, (event) => { event.preventDefault(); zone.classList.add("over"); });
for (const kind of ["dragleave", "drop"]) zone.addEventListener(kind, () => zone.classList.remove("over"));
zone.addEventListener("drop", (event) => { event.preventDefault(); if (!active) gather(dropped(event.dataTransfer.items)); });
window.addEventListener("beforeunload", (event) => { if (active) event.preventDefault(); });
