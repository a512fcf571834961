// A live page: the server says that something changed, the page asks for what it shows.
// The body is sent the event "refresh" then; #lost says when the line is gone.
(() => {
  const lost = document.getElementById("lost");
  if (!lost) return;
  const silence = 25000; // the server speaks every ten seconds
  let source = null, heard = 0, again = null, missed = false;

  // What session.js has taken out of the page is not asked for; htmx would forget that it listens.
  const refresh = () => { if (document.body.classList.contains("ended")) return; if (!document.hidden) document.body.dispatchEvent(new CustomEvent("refresh")); else missed = true; };
  const say = (text) => { lost.hidden = !text; if (text && lost.textContent !== text) lost.textContent = text; };
  const hear = () => { heard = Date.now(); };
  const close = () => { if (source) source.close(); source = null; clearTimeout(again); };

  const open = () => {
    close();
    if (document.hidden) return;
    hear();
    source = new EventSource("/events");
    source.addEventListener("ready", () => { hear(); say(""); refresh(); });
    source.addEventListener("beat", hear);
    source.addEventListener("change", () => { hear(); refresh(); });
    source.addEventListener("restart", hear);
    source.addEventListener("signed-out", () => { close(); say("You are signed out. Please load the page again to sign in."); });
    source.onerror = () => {
      say("Connection lost: what you see may be old. Trying again…");
      // A refusal ends an EventSource for good; a lost line it tries again by itself.
      if (source && source.readyState === EventSource.CLOSED) { close(); again = setTimeout(open, 3000 + Math.random() * 3000); }
    };
  };

  // A tab that nobody looks at needs no line of its own.
  document.addEventListener("visibilitychange", () => {
    if (document.hidden) { close(); } else { open(); if (missed) { missed = false; refresh(); } }
  });
  window.addEventListener("offline", () => { close(); say("Connection lost: what you see may be old. Trying again…"); });
  window.addEventListener("online", open);
  document.addEventListener("rso:back", open);
  window.addEventListener("pagehide", close);
  window.addEventListener("pageshow", (event) => { if (event.persisted) open(); });
  setInterval(() => { if (source && Date.now() - heard > silence) { say("Connection lost: what you see may be old. Trying again…"); open(); } }, 5000);
  // What is due soon moves up although nothing changed.
  setInterval(refresh, 60000);
  open();

  document.addEventListener("htmx:configRequest", (event) => {
    const cause = event.detail.triggeringEvent;
    if (!cause || cause.type === "refresh" || cause.type === "load") event.detail.headers["X-Unattended"] = "1";
  });
  document.addEventListener("htmx:sendError", () => say("Connection lost: what you see may be old. Trying again…"));

  // Clocks go on between two looks: down to the target, then up.
  const words = (minutes, after) => {
    const all = Math.abs(minutes), hours = Math.floor(all / 60), rest = all % 60;
    if (hours >= 48) return `${Math.floor(hours / 24)} days ${after}`;
    return hours ? `${hours} h ${rest} min ${after}` : `${rest} min ${after}`;
  };
  const tick = () => {
    document.querySelectorAll("[data-due]").forEach((cell) => {
      const minutes = Math.floor((Date.parse(cell.dataset.due) - Date.now()) / 60000);
      cell.querySelector(".left").textContent = words(minutes, minutes >= 0 ? "left" : "over");
      cell.classList.toggle("overdue", minutes < 0);
    });
    document.querySelectorAll("time[data-ago]").forEach((cell) => {
      const minutes = Math.floor((Date.now() - Date.parse(cell.dateTime)) / 60000);
      cell.textContent = minutes < 1 ? "now" : minutes < 60 ? `${minutes} min ago` : minutes < 2880 ? `${Math.floor(minutes / 60)} h ago` : `${Math.floor(minutes / 1440)} days ago`;
    });
  };
  setInterval(tick, 10000);
})();
