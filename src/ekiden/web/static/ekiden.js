// What the pages do beyond HTML and htmx: hear that something changed, show text as it is written,
// keep what a person has typed, opened and reached, and show times in the viewer's zone.
(() => {
  "use strict";
  const body = document.body;
  const lang = document.documentElement.lang;
  document.documentElement.classList.add("js");

  // -- times ------------------------------------------------------------------------------------
  const relative = new Intl.RelativeTimeFormat(lang, { numeric: "auto", style: "short" });
  const exact = new Intl.DateTimeFormat(lang, { dateStyle: "medium", timeStyle: "long" });
  const units = [["day", 86400], ["hour", 3600], ["minute", 60], ["second", 1]];
  // The server's clock decides what is past: this one may be wrong.
  let ahead = 0;
  const tell = (root) => {
    for (const time of root.querySelectorAll("time[data-ago]")) {
      const moment = Date.parse(time.dateTime);
      const seconds = (moment - Date.now() + ahead) / 1000;
      const [unit, size] = units.find(([, s]) => Math.abs(seconds) >= s) ?? ["second", 1];
      time.textContent = relative.format(Math.trunc(seconds / size), unit);
      time.title = exact.format(moment);
    }
  };
  const sync = (moment) => {
    const said = Date.parse(moment ?? "");
    if (said && Math.abs(Date.now() - said) > 60000) ahead = Date.now() - said;
  };
  tell(document);
  setInterval(() => tell(document), 15000);

  // -- text as it is written --------------------------------------------------------------------
  const hidden = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180e\u200b\u200c\u200e\u200f\u2028-\u202e\u2060-\u206f\u3164\ufeff\uffa0\ufff0-\ufffb\ud800-\udfff\u{e0000}-\u{e0fff}]/gu;
  const shown = (text) =>
    text.replace(hidden, (c) => `[U+${c.codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}]`);
  const most = 4000;
  // "task attempt" → {calls: Map(call → {seq, text}), from: of which on it is shown, written: whether it was}
  const heard = new Map();

  // Like readable() of the server: JSON without its signs, so that a person can read along.
  const readable = (said) => {
    const start = said.trimStart()[0];
    if ((start !== "{" && start !== "[") || !said.slice(0, 400).includes('":')) return said;
    let out = "";
    for (let at = 0; at < said.length; at += 1) {
      const c = said[at];
      if (c !== '"') {
        if (c === ",") out += "\n";
        else if (/[\p{L}\p{N}.-]/u.test(c)) out += c;
        continue;
      }
      let end = at + 1;
      while (end < said.length && said[end] !== '"') end += said[end] === "\\" ? 2 : 1;
      const word = said.slice(at + 1, end).replace(/\\n/g, "\n").replace(/\\t/g, " ").replace(/\\(["\\/])/g, "$1");
      out += said.slice(end + 1, end + 4).trimStart().startsWith(":") ? `${word.replaceAll("_", " ")}: ` : word;
      at = end;
    }
    return out.split("\n").map((line) => line.trim()).filter(Boolean).join("\n");
  };

  const isAtEnd = (pane) => pane.scrollHeight - pane.scrollTop - pane.clientHeight < 40;
  const write = (pane, follows = isAtEnd(pane)) => {
    const said = heard.get(`${pane.dataset.task} ${pane.dataset.attempt}`);
    if (said) {
      const texts = [...said.calls.entries()].sort(([a], [b]) => a - b).map(([, c]) => readable(c.text));
      const text = texts.filter(Boolean).join("\n\n");
      if (follows) said.from = Math.max(0, text.length - most); // who reads further up loses no line
      else if (!said.written) { // what they read came with the page: it begins where it began
        said.from = text.indexOf(pane.textContent.replace(/^… /, ""));
        if (said.from < 0) return; // not told as far as that yet
      }
      said.written = true;
      pane.textContent = shown((said.from ? "… " : "") + text.slice(said.from));
    }
    if (follows) pane.scrollTop = pane.scrollHeight;
  };
  const due = new Set();
  const hear = (piece) => {
    const key = `${piece.taskId} ${piece.attempt}`;
    if (!heard.has(key)) heard.set(key, { calls: new Map(), from: 0, written: false });
    const { calls } = heard.get(key);
    const call = calls.get(piece.call) ?? { seq: 0, text: "" };
    if (piece.seq <= call.seq) return; // a new connection tells it from the beginning
    calls.set(piece.call, { seq: piece.seq, text: call.text + piece.text });
    if (!due.size) requestAnimationFrame(() => {
      for (const k of due) {
        const [task, attempt] = k.split(" ");
        const pane = document.querySelector(`.said-text[data-task="${task}"][data-attempt="${attempt}"]`);
        if (pane) write(pane);
      }
      due.clear();
    });
    due.add(key);
  };

  // -- that something changed -------------------------------------------------------------------
  // Not by htmx's extension: the one that comes with its files is made for htmx 1.
  const connection = document.getElementById("connection");
  const changed = () => htmx.trigger(body, "ekiden:changed");
  let parts = ""; // of a session's page, until all that changed together is here
  const show = () => {
    if (parts) htmx.swap("#live", parts, { swapStyle: "none", settleDelay: 20 });
    parts = "";
  };
  const longestSilence = 45000; // three signs of life
  // Nothing is tried any more once it says that the login is over: that stays until somebody looks again.
  const asksForLogin = () => !connection.hidden && connection.querySelector("a") !== null;
  const warn = (what) => {
    if (asksForLogin()) return;
    connection.textContent = what;
    connection.hidden = false;
  };
  const calm = () => { if (!asksForLogin()) connection.hidden = true; };
  let rest = () => {}; // follows nothing any more, until somebody looks again
  // Whether the door sends us to the login. Nothing but the door answers HEAD, so it costs nothing.
  const isLoginOver = async (url) => {
    const asked = { method: "HEAD", redirect: "manual", signal: AbortSignal.timeout(10000) };
    return (await fetch(url, asked).catch(() => null))?.type === "opaqueredirect";
  };
  const askForLogin = () => {
    rest();
    if (asksForLogin()) return;
    connection.replaceChildren(document.getElementById("login-over").content.cloneNode(true));
    // What a refused form showed is not at its address: a session's page has its own.
    const { session } = body.dataset;
    const next = session ? `/sessions/${session}` : location.pathname + location.search;
    connection.querySelector("a").search = new URLSearchParams({ next });
    connection.hidden = false;
  };
  const follow = (url) => {
    const base = new URL(url, location.href);
    let last = base.searchParams.get("after");
    let tries = 0;
    let source;
    let lost;
    let again;
    let silent;
    // A connection can die without a word, as that of a machine which is gone does.
    const expect = () => {
      clearTimeout(silent);
      silent = setTimeout(() => {
        tries += 1;
        warn(body.dataset.lost);
        listen();
      }, longestSilence);
    };
    const listen = () => {
      clearTimeout(again);
      source?.close();
      expect();
      if (last !== null) base.searchParams.set("after", last);
      source = new EventSource(base);
      source.onopen = () => {
        expect();
        clearTimeout(lost);
        connection.hidden = true;
        if (tries) changed(); // whatever happened meanwhile
        tries = 0;
      };
      source.onerror = async () => {
        tries += 1;
        clearTimeout(lost);
        if (document.querySelector("[data-ended]")) return rest();
        lost = setTimeout(() => warn(body.dataset.lost), 3000);
        if (source.readyState !== EventSource.CLOSED) return; // the browser tries again
        const refused = source;
        const over = await isLoginOver(base);
        if (source !== refused) return; // rests, or listens anew
        if (over) return askForLogin();
        again = setTimeout(listen, Math.min(1000 * 2 ** Math.min(tries, 4), 15000) * (0.7 + Math.random() * 0.3));
      };
      parts = "";
      const on = (name, does) => source.addEventListener(name, (event) => {
        expect();
        does(event);
      });
      on("alive", () => {});
      on("away", () => warn(body.dataset.stale)); // the database is
      on("back", calm);
      on("changed", changed);
      on("part", (event) => { parts += JSON.parse(event.data); });
      on("shown", (event) => {
        last = event.lastEventId;
        sync(event.data);
        show();
      });
      on("partial", (event) => hear(JSON.parse(event.data)));
    };
    listen();
    rest = () => {
      clearTimeout(again);
      clearTimeout(lost);
      clearTimeout(silent);
      source?.close();
      source = null;
    };
    const resume = () => {
      if (document.querySelector("[data-ended]")) return;
      tries = 1; // so that the page is fetched anew
      listen();
    };
    addEventListener("pagehide", rest);
    addEventListener("pageshow", (event) => event.persisted && resume());
    // A browser gives one server six connections: tabs that nobody looks at must not hold them.
    document.addEventListener("visibilitychange", () => (document.hidden ? rest() : resume()));
  };

  // -- keeping what a person has typed, opened, scrolled and reached ----------------------------
  const dirty = (root) =>
    root.querySelector("[data-typed]") !== null || // refused, and given back to be sent again
    [...root.querySelectorAll("textarea, input:not([type=hidden])")].some((f) =>
      f.type === "checkbox" ? f.checked !== f.defaultChecked : f.value !== f.defaultValue);
  const last = new Map(); // id → HTML as it was sent
  // Not the buttons that send a form: what they would decide may be another thing by now.
  const handled = "a, details, summary, input, button[type=button], [tabindex], .tabs";
  // The same before and after: its id, or what it is within the nearest thing that has one.
  const nameOf = (e) => e.id || [
    e.parentElement.closest("[id]").id, e.localName,
    ["href", "name", "aria-label"].map((told) => e.getAttribute(told)).find(Boolean),
  ].join(" ");
  const byName = (root) => Map.groupBy(root.querySelectorAll(handled), nameOf);
  const stateOf = (e) => ({
    open: e.open, left: e.scrollLeft, top: e.scrollTop, follows: isAtEnd(e), focused: e === document.activeElement,
  });
  const putBack = (e, was) => {
    if (e.matches(".said-text")) write(e, was?.follows ?? true);
    if (!was) return;
    if (e.localName === "details") e.open = was.open;
    if (was.left) e.scrollLeft = was.left;
    if (was.top && !was.follows) e.scrollTop = was.top;
    if (was.focused && document.activeElement === body) e.focus({ preventScroll: true });
  };
  // Returns what puts it back once the target is replaced. Those of one name are matched by their
  // place, when there are as many as before.
  const keep = (target) => {
    const before = new Map([...byName(target)].map(([name, all]) => [name, all.map(stateOf)]));
    return () => {
      const root = document.getElementById(target.id);
      tell(root);
      for (const [name, all] of byName(root)) {
        const was = before.get(name) ?? [];
        all.forEach((e, at) => putBack(e, was.length === all.length ? was[at] : undefined));
      }
    };
  };
  const kept = []; // of what is being replaced
  // Whether somebody is deciding, so that the forms must stay as they are.
  const isBusy = (act, fresh) => {
    const revision = (root) => root.querySelector("[name=revision], [name=of_phase]")?.value ?? "";
    const seen = revision(act);
    if (dirty(act)) {
      if (revision(fresh) !== seen) act.querySelector(".moved-on")?.removeAttribute("hidden");
      return true;
    }
    // The same gate: the focus stays.
    return act.contains(document.activeElement) && seen && seen === revision(fresh);
  };
  body.addEventListener("htmx:beforeSwap", (event) => {
    const { target, xhr } = event.detail;
    sync(xhr.getResponseHeader("date"));
    const isList = target.matches("[data-live]");
    if (xhr.status >= 500 || (xhr.status >= 400 && isList)) {
      event.detail.shouldSwap = false; // what is shown was right; the next change asks again
      if (xhr.status >= 500 && isList) warn(body.dataset.stale);
      return;
    }
    if (xhr.responseURL && new URL(xhr.responseURL).pathname === "/login") {
      event.detail.shouldSwap = false;
      askForLogin();
      return;
    }
    if (isList) calm();
    if (target.querySelector(".line-check :checked")) {
      event.detail.shouldSwap = false; // somebody is choosing
      return;
    }
    if (event.detail.shouldSwap) kept.push(keep(target));
  });
  for (const unanswered of ["htmx:sendError", "htmx:timeout"])
    body.addEventListener(unanswered, (event) => {
      if (event.target.matches("[data-live]")) warn(body.dataset.stale);
    });
  body.addEventListener("htmx:oobBeforeSwap", (event) => {
    const { target, fragment } = event.detail;
    if (target.id === "act" && isBusy(target, fragment)) {
      event.detail.shouldSwap = false;
      return;
    }
    const fresh = fragment.firstElementChild ?? fragment;
    const html = fresh.outerHTML ?? "";
    if (last.get(target.id) === html) event.detail.shouldSwap = false;
    else {
      last.set(target.id, html);
      kept.push(keep(target));
    }
  });
  body.addEventListener("htmx:afterSwap", () => {
    for (const back of kept.splice(0)) back();
    speak();
  });

  // -- saying aloud what went wrong -------------------------------------------------------------
  // Once, in a place that is never replaced: a live region that is would be read out each time.
  const trouble = () => [...document.querySelectorAll("[data-aloud]")].map((e) => e.textContent).join(" ");
  let spoken = trouble(); // who opens a page reads it
  const speak = () => {
    const now = trouble();
    if (now !== spoken) document.getElementById("aloud").textContent = now;
    spoken = now;
  };

  // -- small helps ------------------------------------------------------------------------------
  const copy = async (text) => {
    try {
      await navigator.clipboard.writeText(text);
      return true;
    } catch { // there is none over plain HTTP, but the old way is
      const area = Object.assign(document.createElement("textarea"), { value: text, className: "copied" });
      body.append(area);
      area.select();
      const done = document.execCommand("copy");
      area.remove();
      return done;
    }
  };
  body.addEventListener("click", async (event) => {
    const button = event.target.closest("button.copy");
    if (!button || !(await copy(button.dataset.copy))) return;
    button.focus();
    const before = button.textContent;
    button.textContent = body.dataset.copied;
    setTimeout(() => { button.textContent = before; }, 1500);
  });
  body.addEventListener("submit", (event) => {
    // Twice in a second is once; the server knows that too.
    const form = event.target;
    if (form.dataset.sent) event.preventDefault();
    form.dataset.sent = "1";
    setTimeout(() => delete form.dataset.sent, 1500);
  });
  body.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.target.matches("input, textarea, select, [contenteditable]")) return;
    const wanted = document.querySelector(`[data-key="${CSS.escape(event.key)}"]`);
    if (wanted) { wanted.focus(); wanted.scrollIntoView({ block: "center" }); return; }
    if (event.key === "/") {
      const search = document.querySelector("input[type=search]");
      if (search) { event.preventDefault(); search.focus(); }
    }
    if (event.key === "j" || event.key === "k") {
      const lines = [...document.querySelectorAll(".line-link")];
      const at = lines.indexOf(document.activeElement);
      lines[Math.max(0, Math.min(lines.length - 1, at + (event.key === "j" ? 1 : -1)))]?.focus();
    }
  });

  // On a phone the way to the decision stays in sight until the decision is.
  const decision = document.getElementById("act");
  if (decision)
    new IntersectionObserver(([seen]) =>
      document.documentElement.classList.toggle("at-decision", seen.isIntersecting)).observe(decision);

  for (const pane of document.querySelectorAll(".said-text")) write(pane, true);
  const url = body.dataset.events;
  if (url && !document.querySelector("[data-ended]")) follow(url);
})();
