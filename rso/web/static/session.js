// A session ends without use, and at its latest: said in time, extended by one press or by typing.
// The server alone knows when: it is asked before anything is said, and before the page is left.
const body = document.body;
// What a page asks by itself, without a hand on it, is no sign of a person at the desk.
document.addEventListener("htmx:configRequest", (event) => {
  const by = event.detail.triggeringEvent;
  if (!by || !by.isTrusted) event.detail.headers["X-Unattended"] = "1";
  // The token of now, where what the page was made with is of a session before.
  if (body.dataset.csrf) event.detail.headers["X-CSRF-Token"] = body.dataset.csrf;
});
if (body.dataset.idle) {
  const idle = Number(body.dataset.idle) * 1000;
  const warn = Math.min(120000, idle / 3);
  const who = body.dataset.who;
  let idleAt = Date.now() + idle, latest = Date.now() + Number(body.dataset.left) * 1000;
  let used = Date.now(); // when the server was last told of use
  let state = "in"; // or "out", or "other": somebody else signed in with this browser
  let told = false, silent = false; // whether the server was asked about an end that is near, and is away
  let asking = null, again = 0;

  const box = document.createElement("div");
  box.className = "session";
  box.setAttribute("role", "alert");
  const words = document.createElement("p");
  const stay = document.createElement("button");
  stay.type = "button";
  stay.className = "main";
  stay.textContent = "Stay signed in";
  const enter = Object.assign(document.createElement("a"), { href: "/sign-in", target: "_blank", rel: "noopener", className: "button main", textContent: "Sign in" });
  box.append(words, stay, enter);

  const take = (said) => {
    if (said.account !== who) { state = "other"; show(); return; }
    state = "in";
    body.classList.remove("ended");
    restore();
    if (said.csrf !== body.dataset.csrf) {
      // Signed in again in another tab: the forms here go on with the token of the session of now.
      body.dataset.csrf = said.csrf;
      document.querySelectorAll("input[name=_csrf]").forEach((field) => { field.value = said.csrf; });
    }
    idleAt = Date.now() + said.idle_seconds * 1000;
    latest = Date.now() + said.left_seconds * 1000;
    tell();
    show();
  };
  // What is used in one tab is used in all of this browser. What else they learn, each asks for itself:
  // a page out of a cache may speak of a session that is over.
  const tabs = "BroadcastChannel" in window ? new BroadcastChannel("rso-session") : null;
  const tell = () => { if (tabs) tabs.postMessage({ who, csrf: body.dataset.csrf, idleAt }); };
  if (tabs) tabs.addEventListener("message", ({ data }) => {
    if (state !== "in" || data.who !== who || data.csrf !== body.dataset.csrf) { ask(); return; }
    idleAt = Math.max(idleAt, data.idleAt);
    show();
  });

  // What is typed and kept nowhere but here: not a draft that the server has, and no password. A page
  // that refused a form holds what was typed before.
  const typed = (field) => {
    if (field.type === "file") return field.files.length > 0;
    if (field.form.dataset.kept || ["hidden", "password"].includes(field.type)) return false;
    if (field.type === "checkbox" || field.type === "radio") return field.checked !== field.defaultChecked;
    if (!field.options) return field.value !== (field.defaultValue || "");
    const first = [...field.options].some((option) => option.defaultSelected);
    return [...field.options].some((option, n) => option.selected !== (first || field.multiple ? option.defaultSelected : n === 0));
  };
  const refused = (performance.getEntriesByType("navigation")[0] || {}).responseStatus >= 400;
  // A search, too, is posted, for names belong in no address: it is not saved, and leaves nothing behind.
  const unsaved = () => [...document.querySelectorAll("main form[method=post]:not([role=search])")].filter((form) => (refused && !form.dataset.kept) || [...form.elements].some((field) => field.matches("input, select, textarea") && typed(field)));
  // All else than these is taken out of the page until somebody may see it again: patients are not only out of sight.
  const away = [];
  const strip = (node, forms) => [...node.childNodes].forEach((child) => {
    if (forms.includes(child)) return;
    if (forms.some((form) => child.contains(form))) { strip(child, forms); return; }
    const mark = document.createComment("");
    child.replaceWith(mark);
    away.push([mark, child]);
  });
  const restore = () => {
    if (!away.length) return;
    away.splice(0).forEach(([mark, child]) => mark.replaceWith(child));
    document.dispatchEvent(new Event("rso:back"));
  };
  const leave = () => {
    if (state === "out") return;
    state = "out";
    show();
    // What is not saved yet stays, out of sight: whoever signs in beside it goes on here.
    const forms = unsaved();
    if (forms.length) strip(document.querySelector("main"), [...forms, ...document.querySelectorAll("main [role=search]")]);
    else location.assign(`/sign-in?next=${encodeURIComponent(location.pathname)}`);
  };
  const request = (method) => fetch("/me/session", { method, headers: { Accept: "application/json", ...(method === "POST" ? { "X-CSRF-Token": body.dataset.csrf } : { "X-Unattended": "1" }) } }).catch(() => null);
  const heed = async (answer) => {
    if (answer && answer.status === 401) { leave(); return false; }
    told = true;
    silent = !answer || !answer.ok;
    if (silent) { again = Date.now() + 5000; show(); return false; }
    take(await answer.json());
    return state === "in";
  };
  // How long is left, without use of the session; one question at a time.
  const ask = () => { asking = asking || request("GET").then(heed).finally(() => { asking = null; }); return asking; };
  const extend = async () => {
    used = Date.now();
    let answer = await request("POST");
    if (answer && answer.status === 403 && await ask()) answer = await request("POST"); // with the token of now
    await heed(answer);
  };
  stay.addEventListener("click", extend);
  // Somebody who types a long form is at work, and so is a page that says so: an upload.
  const use = () => { if (state === "in" && Date.now() - used > Math.min(60000, idle / 4)) extend(); };
  document.addEventListener("input", use);
  document.addEventListener("rso:use", use);
  // A script whose token was refused waits here for the one of now.
  document.addEventListener("rso:stale", (event) => { event.detail.asked = ask(); });

  const show = () => {
    body.classList.toggle("ended", state !== "in"); // patients, too, are for those who are signed in
    const now = Date.now(), left = Math.min(idleAt, latest) - now, near = left < warn;
    if (state === "in" && !near) told = false;
    if (state === "in" && near && !(told && left > 0) && now >= again) { again = now + 1000; ask(); }
    let text = "";
    if (state === "out") text = "Your session has ended. Sign in again, and go on here: what is typed stays.";
    else if (state === "other") text = "Somebody else signed in with this browser. Nothing here can be saved any more; please load the page again.";
    else if (near && told && silent && left <= 0) text = "RSO does not answer; your session may have ended.";
    else if (near && told) {
      const minutes = Math.ceil(left / 60000);
      const when = minutes > 1 ? `in ${minutes} minutes` : "in less than a minute";
      text = latest <= idleAt ? `Your session ends ${when}. Please save your work and sign in again.` : `You will be signed out ${when}.`;
    }
    if (words.textContent !== text) words.textContent = text;
    stay.hidden = state !== "in" || latest <= idleAt;
    enter.hidden = state !== "out";
    // It stands in the page only while it says something.
    if (text && !box.isConnected) body.append(box);
    if (!text) box.remove();
  };
  setInterval(show, 1000);
  tell();
  // A page out of the browser's memory is of another time.
  addEventListener("pageshow", (event) => { if (event.persisted) { state = "in"; ask(); } });
}
