// Small things that HTML alone does not do: copying, printing, testing a destination.
document.addEventListener("click", (event) => {
  const button = event.target.closest("[data-copy], [data-print]");
  if (!button) return;
  if (button.hasAttribute("data-print")) { window.print(); return; }
  // Over plain HTTP a browser has no clipboard for pages: the text is selected to be copied by hand.
  const byHand = () => {
    let field = button.nextElementSibling;
    if (!field || !field.matches("input.copy")) {
      field = Object.assign(document.createElement("input"), { className: "copy", readOnly: true, value: button.dataset.copy });
      field.setAttribute("aria-label", "Text to copy");
      button.after(field);
    }
    field.select();
    button.textContent = `Press ${/Mac/.test(navigator.platform) ? "⌘C" : "Ctrl+C"}`;
  };
  if (!navigator.clipboard) { byHand(); return; }
  navigator.clipboard.writeText(button.dataset.copy).then(() => { button.textContent = "Copied"; }, byHand);
});
// The test of a destination: what it answered, beside its button.
document.addEventListener("click", async (event) => {
  const button = event.target.closest("[data-test]");
  if (!button) return;
  const output = button.parentElement.querySelector("output");
  output.textContent = "…";
  const csrf = document.querySelector("[name=_csrf]").value;
  const answer = await fetch(`/admin/test/${encodeURIComponent(button.dataset.test)}`, { method: "POST", headers: { "X-CSRF-Token": csrf } });
  const { ok, detail } = await answer.json();
  output.textContent = `${ok ? "✔" : "✕"} ${detail || ""}`;
});
// The options of the sender that a destination chose; without scripts those of all are there.
const senders = (select) => select.closest("fieldset").querySelectorAll("[data-sender]").forEach((part) => { part.hidden = part.dataset.sender !== select.value; });
document.querySelectorAll("[data-senders]").forEach((select) => { senders(select); select.addEventListener("change", () => senders(select)); });
// On a narrow screen the menu scrolls: the page one is on is in sight.
const here = document.querySelector(".bar [aria-current]");
if (here) here.parentElement.scrollLeft = here.offsetLeft - here.parentElement.offsetLeft - 24;
