// The active list with the keyboard: j and k or the arrows go, Enter opens, c claims,
// n and p turn the page, / searches.
(() => {
  const rows = document.getElementById("rows");
  if (!rows) return;
  const help = document.getElementById("keys"), said = document.getElementById("said");
  const all = () => [...rows.querySelectorAll("tr[data-number]")];
  let chosen = null; // an exam number: it stays chosen when the rows are loaded anew

  const keysOn = () => localStorage.getItem("rso-keys") !== "off";
  const toggle = document.getElementById("keys-on");
  toggle.checked = keysOn();
  toggle.addEventListener("change", () => localStorage.setItem("rso-keys", toggle.checked ? "on" : "off"));

  const mark = (focus) => {
    all().forEach((row) => {
      const own = row.dataset.number === chosen;
      row.classList.toggle("chosen", own);
      if (own && focus) { row.querySelector("a").focus({ preventScroll: true }); row.scrollIntoView({ block: "nearest" }); }
    });
  };
  const go = (step) => {
    const found = all();
    if (!found.length) return;
    const at = found.findIndex((row) => row.dataset.number === chosen);
    const to = at < 0 ? (step > 0 ? 0 : found.length - 1) : Math.min(Math.max(at + step, 0), found.length - 1);
    chosen = found[to].dataset.number;
    mark(true);
  };
  const row = () => all().find((r) => r.dataset.number === chosen);
  const press = (selector) => { const button = row() && row().querySelector(selector); if (button) button.click(); };

  const turn = (way) => { const button = rows.querySelector(`[data-page=${way}]`); if (button) button.click(); };

  // Back from an exam leads to where the list was. Browsers write this to disk: no search is in it,
  // and no place among names.
  const finder = document.getElementById("finder");
  const cursor = () => rows.querySelector("[name=cursor]");
  const remember = () => {
    const filters = {};
    finder.querySelectorAll("select").forEach((select) => { filters[select.name] = select.value; });
    const told = !document.getElementById("search").value && filters.sort !== "name";
    history.replaceState({ filters, cursor: told ? cursor().value : "", chosen }, "");
  };
  const recall = () => {
    const kept = history.state;
    if (!kept || !kept.filters) return;
    finder.querySelectorAll("select").forEach((select) => { select.value = kept.filters[select.name] || ""; });
    document.getElementById("search").value = "";
    if (Object.entries(kept.filters).some(([name, value]) => value && name !== "sort")) finder.querySelector(".filters").open = true;
    cursor().value = kept.cursor;
    chosen = kept.chosen;
    finder.addEventListener("htmx:afterRequest", () => mark(true), { once: true });
    document.body.dispatchEvent(new CustomEvent("refresh"));
  };
  document.addEventListener("DOMContentLoaded", recall); // behind htmx's own start

  rows.addEventListener("focusin", (event) => {
    const own = event.target.closest("tr[data-number]");
    if (own) { chosen = own.dataset.number; mark(false); remember(); }
  });
  // The rows come anew: who had the focus in them has it again.
  let inside = false;
  document.addEventListener("htmx:beforeSwap", (event) => { if (event.target === rows) inside = rows.contains(document.activeElement); });
  document.addEventListener("htmx:afterSwap", (event) => {
    if (event.target !== rows) return;
    // Another page begins at its top, under the eyes and for the keyboard.
    if (event.detail.requestConfig.elt.name === "to") { chosen = null; rows.focus({ preventScroll: true }); rows.scrollIntoView({ block: "start" }); }
    else mark(inside);
    remember();
    tell(event.detail.requestConfig.triggeringEvent);
  });
  // Who does not see the rows change is told what a search found; not what comes by itself, which
  // only takes back what is so no more.
  const fits = document.getElementById("fits");
  const tell = (cause) => {
    const words = cursor().dataset.fits;
    if (cause && cause.type !== "refresh") fits.textContent = words;
    else if (fits.textContent !== words) fits.textContent = "";
  };

  document.addEventListener("htmx:responseError", (event) => {
    const answer = event.detail.xhr;
    let text = "That did not work.";
    try { text = JSON.parse(answer.responseText).detail || text; } catch { /* not for people */ }
    said.textContent = answer.status === 401 ? "You are signed out. Please load the page again." : text;
    said.hidden = false;
    setTimeout(() => { said.hidden = true; }, 8000);
  });

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || help.open) return;
    const typing = event.target.closest("input, select, textarea, [contenteditable]");
    if (typing) {
      if (event.key === "Escape") { typing.blur(); }
      return;
    }
    const inList = rows.contains(event.target);
    if (!keysOn() && !(inList && event.key.startsWith("Arrow"))) return;
    const act = {
      j: () => go(1), k: () => go(-1), ArrowDown: () => go(1), ArrowUp: () => go(-1),
      Enter: () => { if (event.target === document.body || event.target.id === "main") press("a.number"); else return "on"; },
      c: () => press("[data-claim]"), "/": () => { const s = document.getElementById("search"); s.focus(); s.select(); },
      n: () => turn("next"), p: () => turn("previous"),
      "?": () => help.showModal(),
    }[event.key];
    if (act && act() !== "on") event.preventDefault();
  });
  document.getElementById("show-keys").addEventListener("click", () => help.showModal());
  document.getElementById("hide-keys").addEventListener("click", () => help.close());

  // Another search or filter begins at the first exam.
  document.addEventListener("htmx:configRequest", (event) => {
    const cause = event.detail.triggeringEvent;
    if (event.target.id === "finder" && cause && cause.type !== "refresh") event.detail.parameters.cursor = "";
  });
  // A view is what the finder says now; its form takes it along when it is kept.
  const keep = document.getElementById("keep-view");
  keep.addEventListener("submit", () => {
    finder.querySelectorAll("select").forEach((select) => {
      const copy = document.createElement("input");
      copy.type = "hidden"; copy.name = select.name; copy.value = select.value;
      keep.append(copy);
    });
  });
})();
