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
