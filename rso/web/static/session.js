// A session ends without use, and at its latest: said in time, extended by one press or by typing.
const body = document.body;
// What a page asks by itself, without a hand on it, is no sign of a person at the desk.
document.addEventListener("htmx:configRequest", (event) => {
  const by = event.detail.triggeringEvent;
  if (!by || !by.isTrusted) event.detail.headers["X-Unattended"] = "1";
});
if (body.dataset.idle) {
  const idle = Number(body.dataset.idle) * 1000;
  const warn = Math.min(120000, idle / 3);
  let idleAt = Date.now() + idle;
  const latest = () => Number(body.dataset.endsAt);
  body.dataset.endsAt = String(Date.now() + Number(body.dataset.left) * 1000);
  const box = document.createElement("div");
  box.className = "session";
  box.setAttribute("role", "alert");
  const words = document.createElement("p");
  const stay = document.createElement("button");
  stay.type = "button";
  stay.className = "main";
  stay.textContent = "Stay signed in";
  box.append(words, stay);
  let asked = Date.now();
  const extend = async () => {
    asked = Date.now();
    const answer = await fetch("/me/session", { method: "POST", headers: { "X-CSRF-Token": body.dataset.csrf } }).catch(() => null);
    if (!answer) return;
    if (!answer.ok) { location.assign("/sign-in"); return; }
    const said = await answer.json();
    idleAt = Date.now() + said.idle_seconds * 1000;
    body.dataset.endsAt = String(Date.now() + said.left_seconds * 1000);
    show();
  };
  stay.addEventListener("click", extend);
  // Somebody who types a long form is at work.
  document.addEventListener("input", () => { if (Date.now() - asked > Math.min(60000, idle / 4)) extend(); });
  const show = () => {
    const left = Math.min(idleAt, latest()) - Date.now();
    if (left <= 0) { location.assign("/sign-in"); return; }
    const near = left < warn;
    if (near) {
      const minutes = Math.ceil(left / 60000);
      const when = minutes > 1 ? `in ${minutes} minutes` : "in less than a minute";
      const last = latest() <= idleAt;
      const text = last ? `Your session ends ${when}. Please save your work and sign in again.` : `You will be signed out ${when}.`;
      if (words.textContent !== text) words.textContent = text;
      stay.hidden = last;
    }
    // It stands in the page only while it says something.
    if (near && !box.isConnected) body.append(box);
    if (!near) box.remove();
  };
  setInterval(show, 1000);
}
