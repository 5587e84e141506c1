// The page of a job that goes on: asks its own server for what is new, and says how that stands.

/** Requests in a row without an answer after which the page says that the server is gone, and asks seldom. */
const WATCH_FAILURES = 4;
/** Milliseconds after which a request without an answer has failed. */
const WATCH_TIMEOUT_MS = 20000;

/** What the page says of its server, by state: a short word with its colour, and a sentence. */
const WATCH_WORDS = {
  live: ["good", "live", "New rows appear here while the job runs."],
  waiting: ["warn", "no answer", "The server of this page does not answer; asking again."],
  ended: ["", "ended", "The run has ended. This page stays as it is."],
  gone: [
    "bad",
    "server gone",
    "The command that serves this page does not answer, or has ended. The page stays as it is, asks again now and then, and goes on once it is answered.",
  ],
};

/** Asks for chunks and meta data that the page does not have yet, until the run has ended; seldom while the server is gone. */
class Watch {
  constructor(app, node) {
    const { generation, version, every_ms: pause, seldom_ms: longPause } = app.meta.watch;
    this.app = app;
    this.node = node;
    this.generation = generation;
    this.version = version;
    this.pause = pause;
    this.longPause = longPause;
    this.page = Math.random().toString(36).slice(2);
    this.state = "";
    this.failures = 0;
    this.timer = 0;
    this.isAsking = false;
  }

  /** Whether there is nothing to ask for any more. */
  get isOver() {
    return this.state === "ended";
  }

  /** Says a new state in the header, and to screen readers where it is not the first one. */
  say(state) {
    if (state === this.state) return;
    const [colour, word, sentence] = WATCH_WORDS[state];
    if (this.state) this.app.announce(sentence);
    this.state = state;
    this.node.className = `badge ${colour}`;
    this.node.title = sentence;
    clear(this.node).append(textNode(word), el("span", { class: "visually-hidden" }, `: ${sentence}`));
    document.getElementById("watch-ended").hidden = !this.isOver && state !== "gone";
    clear(document.getElementById("watch-ended")).append(textNode(sentence));
  }

  /** Asks once, and again after a pause. */
  async ask() {
    clearTimeout(this.timer);
    if (this.isAsking || this.isOver) return;
    this.isAsking = true;
    const isMore = await this.askOnce();
    this.isAsking = false;
    const pause = this.state === "gone" ? this.longPause : this.pause;
    if (!this.isOver) this.timer = setTimeout(() => this.ask(), isMore ? 0 : pause);
  }

  /** Asks once; whether there is more to fetch at once. */
  async askOnce() {
    let answer;
    try {
      answer = await this.fetchData();
    } catch {
      this.failures += 1;
      this.say(this.failures < WATCH_FAILURES ? "waiting" : "gone");
      return false;
    }
    this.failures = 0;
    if (answer.generation !== this.generation) {
      location.reload();
      return false;
    }
    this.version = answer.version;
    if (answer.chunks.length || answer.meta) await this.app.take(answer.chunks, answer.meta);
    this.say(answer.ended ? "ended" : "live");
    return answer.more;
  }

  /** Where to ask, with what this page has. */
  get query() {
    return `data?from=${this.app.chunkCount}&of=${this.generation}&meta=${this.version}&page=${this.page}`;
  }

  /** Tells the server that this page is closed, so that it does not wait for it. */
  leave() {
    if (!this.isOver) fetch(`${this.query}&left=1`, { keepalive: true }).catch(() => {});
  }

  /** What the server has that the page has not. */
  async fetchData() {
    const response = await fetch(this.query, {
      cache: "no-store",
      credentials: "omit",
      redirect: "error",
      signal: AbortSignal.timeout(WATCH_TIMEOUT_MS),
    });
    if (!response.ok) throw new Error(`status ${response.status}`);
    return response.json();
  }
}

/** Begins to ask for new rows; asks at once when the page comes into view again. */
function startWatch(app) {
  const node = el("span", { id: "watch" });
  document.querySelector(".header-tools").prepend(node);
  document.getElementById("main").prepend(el("p", { id: "watch-ended", class: "notice", hidden: true }));
  const watch = new Watch(app, node);
  document.addEventListener("visibilitychange", () => {
    if (!document.hidden) watch.ask();
  });
  addEventListener("pagehide", () => watch.leave());
  watch.ask();
}
