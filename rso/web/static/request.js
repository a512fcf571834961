// The request form: fields that matter only sometimes, and a draft kept on the server while typing.
(() => {
  const form = document.querySelector("form.sheet");
  if (!form) return;
  const value = (name) => { const f = form.elements.namedItem(name); return f ? (f.type === "checkbox" ? (f.checked ? f.value : "") : f.value) : ""; };
  const rules = {
    unknown: () => value("unknown"), known: () => !value("unknown"),
    stat: () => value("priority") === "stat" || value("priority_reason"),
    "not-male": () => value("sex") !== "M" || value("pregnancy"),
  };
  const fit = () => form.querySelectorAll("[data-when]").forEach((part) => { part.hidden = !rules[part.dataset.when](); });
  // Only people of the chosen facility can be told: those of others are not sent.
  const people = form.querySelector("#people");
  const gather = () => {
    if (!people) return;
    let some = false;
    people.querySelectorAll("[data-at]").forEach((row) => {
      const here = row.dataset.at.split(" ").includes(value("facility"));
      row.hidden = !here;
      row.querySelectorAll("input").forEach((box) => { box.disabled = !here; });
      some = some || here;
    });
    people.hidden = !some;
    document.getElementById("no-people").hidden = some;
  };
  form.addEventListener("input", () => { fit(); gather(); });
  fit();
  gather();
  const wrong = form.querySelector("[aria-invalid]");
  if (wrong) wrong.focus();

  if (form.id !== "request") return;
  const kept = document.getElementById("kept");
  const csrf = form.elements.namedItem("_csrf"); // session.js keeps it current
  let waiting = null, sending = false, changes = 0;
  form.dataset.kept = "yes"; // as the server has it: empty, or a draft; session.js need not stay for it
  const typed = () => { const data = new FormData(form); data.delete("documents"); return new URLSearchParams([...data].filter(([, v]) => typeof v === "string")); };
  // A token that was refused may be of a session before: session.js asks for the one of now.
  const renewed = async () => {
    const event = new CustomEvent("rso:stale", { detail: {} });
    document.dispatchEvent(event);
    return Boolean(await event.detail.asked);
  };
  const why = (status) => ({
    0: "the line may be down", 401: "you are signed out; sign in again in another tab and type on here",
    403: "somebody else may have signed in with this browser; load the page again",
  }[status] || `RSO answered ${status}`);
  const keep = async () => {
    clearTimeout(waiting);
    if (sending) return;
    const now = changes;
    const send = () => fetch("/exams/new/draft", { method: "POST", headers: { Accept: "application/json", "X-CSRF-Token": csrf.value }, body: typed() }).catch(() => null);
    let answer = await send();
    if (answer && answer.status === 403 && await renewed()) answer = await send();
    if (sending) return;
    if (answer && answer.ok) {
      const held = (await answer.json()).kept;
      if (held && now === changes) form.dataset.kept = "yes";
      kept.textContent = held ? "Draft kept." : "";
    } else { kept.textContent = `The draft could not be kept: ${why(answer ? answer.status : 0)}.`; }
  };
  form.addEventListener("input", (event) => {
    if (event.target.id === "documents") return; // kept with what is typed, below
    changes += 1;
    delete form.dataset.kept;
    clearTimeout(waiting); waiting = setTimeout(keep, 900);
  });
  form.addEventListener("submit", () => { sending = true; clearTimeout(waiting); if (aborting) aborting.abort(); });
  const drop = document.getElementById("drop");
  if (drop) drop.addEventListener("submit", () => { sending = true; clearTimeout(waiting); if (aborting) aborting.abort(); });
  // A form that comes back from the browser's memory may have been sent already.
  addEventListener("pageshow", (event) => { if (event.persisted) location.reload(); });

  // Documents: kept as they are chosen, one exchange at a time. The server's page says what is kept.
  // The field holds all that are not kept yet, so that they go with the form in any case.
  let aborting = null, turn = Promise.resolve(), unkept = [];
  const input = document.getElementById("documents"); // never replaced: its dialog may be open
  const hold = () => { const all = new DataTransfer(); unkept.forEach((file) => all.items.add(file)); input.files = all.files; held = [...input.files]; };
  let held = [];
  const untouched = () => input.files.length === held.length && [...input.files].every((file, n) => file.name === held[n].name && file.size === held[n].size && file.lastModified === held[n].lastModified);
  // What was refused a moment ago stays said beside the answer of an exchange that waited for it.
  const show = (part, alone) => {
    const said = alone ? [] : [...document.querySelectorAll("#documents-problem li")];
    const field = input.closest(".field"), fresh = part.querySelector(".field");
    document.querySelectorAll("#papers > .documents, #documents-problem").forEach((old) => old.remove());
    const list = part.querySelector(".documents");
    let problem = part.querySelector("#documents-problem");
    if (said.length && !problem) problem = Object.assign(document.createElement("ul"), { id: "documents-problem", className: "plain problem" });
    if (said.length) { problem.prepend(...said); fresh.classList.add("wrong"); }
    if (list) field.before(list);
    if (problem) field.querySelector(".hint").before(problem);
    field.className = fresh.className;
    field.querySelector("label").textContent = fresh.querySelector("label").textContent;
    for (const name of ["aria-invalid", "aria-describedby"]) input.toggleAttribute(name, false);
    if (problem) { input.setAttribute("aria-invalid", "true"); input.setAttribute("aria-describedby", problem.id); }
  };
  const exchange = async (remove, alone) => {
    if (sending) return;
    const sent = [...unkept], data = new FormData(form);
    if (remove) data.set("remove", remove); else if (!sent.length) return;
    kept.textContent = remove ? "" : "Keeping the documents…";
    aborting = new AbortController();
    let part = null, status = 0;
    try {
      const send = () => fetch("/exams/new/documents", { method: "POST", headers: { Accept: "text/html" }, body: data, signal: aborting.signal });
      let answer = await send();
      if (answer.status === 403 && await renewed()) { data.set("_csrf", csrf.value); answer = await send(); }
      status = answer.status;
      part = new DOMParser().parseFromString(await answer.text(), "text/html").getElementById("papers");
    } catch { /* said below */ }
    aborting = null;
    if (sending) return;
    if (!part) {
      document.querySelectorAll("#papers li[hidden]").forEach((line) => { line.hidden = false; });
      if (status === 413) { unkept = []; hold(); }
      kept.textContent = status === 413 ? "Too large at once; choose fewer documents." : `The documents could not be kept: ${why(status)}.`;
      return;
    }
    const focused = document.activeElement, lost = remove && (!focused || focused === document.body || (focused !== input && document.getElementById("papers").contains(focused)));
    show(document.importNode(part, true), alone);
    unkept = unkept.filter((file) => !sent.includes(file));
    if (untouched()) hold(); // else a choice is about to be told
    if (lost) input.focus();
    kept.textContent = document.getElementById("documents-problem") ? "Not every document was kept; see Documents." : remove ? "Document removed." : "Documents kept.";
  };
  let waits = 0;
  const queue = (remove) => {
    const alone = waits === 0;
    waits += 1;
    turn = turn.then(() => exchange(remove, alone)).finally(() => { waits -= 1; });
  };
  form.querySelectorAll("[name=keep]").forEach((button) => { button.hidden = true; });
  form.addEventListener("change", (event) => { if (event.target.id === "documents") { unkept.push(...event.target.files); hold(); queue(); } });
  form.addEventListener("click", (event) => {
    const button = event.target.closest("button[name=remove]");
    if (!button) return;
    event.preventDefault();
    button.closest("li").hidden = true;
    queue(button.value);
  });
})();
