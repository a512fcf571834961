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
  form.addEventListener("input", fit);
  fit();
  const wrong = form.querySelector("[aria-invalid]");
  if (wrong) wrong.focus();

  if (form.id !== "request") return;
  const kept = document.getElementById("kept");
  const csrf = form.elements.namedItem("_csrf").value;
  let waiting = null, sending = false;
  const typed = () => { const data = new FormData(form); data.delete("documents"); return new URLSearchParams([...data].filter(([, v]) => typeof v === "string")); };
  const keep = async () => {
    clearTimeout(waiting);
    if (sending) return;
    const answer = await fetch("/exams/new/draft", { method: "POST", headers: { "X-CSRF-Token": csrf }, body: typed() }).catch(() => null);
    if (sending) return;
    if (answer && answer.ok) { kept.textContent = (await answer.json()).kept ? "Draft kept." : ""; } else { kept.textContent = "The draft could not be kept; the line may be down."; }
  };
  form.addEventListener("input", () => { clearTimeout(waiting); waiting = setTimeout(keep, 900); });
  form.addEventListener("submit", () => { sending = true; clearTimeout(waiting); });
  const drop = document.getElementById("drop-draft");
  if (drop) drop.addEventListener("click", async () => {
    sending = true; clearTimeout(waiting);
    await fetch("/exams/new/draft", { method: "POST", headers: { "X-CSRF-Token": csrf }, body: new URLSearchParams({ drop: "1" }) });
    location.assign("/exams/new");
  });
})();
