// Small things that HTML alone does not do: copying, printing, telling that the connection is lost.
document.addEventListener("click", (event) => {
  const button = event.target.closest("[data-copy], [data-print]");
  if (!button) return;
  if (button.hasAttribute("data-print")) { window.print(); return; }
  navigator.clipboard.writeText(button.dataset.copy).then(() => { button.textContent = "Copied"; });
});
const lost = (hidden) => { const note = document.getElementById("lost"); if (note) note.hidden = hidden; };
document.addEventListener("htmx:sendError", () => lost(false));
document.addEventListener("htmx:responseError", () => lost(false));
document.addEventListener("htmx:afterOnLoad", () => lost(true));
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
