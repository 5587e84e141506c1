// Requests: the body that was sent to the service, made again of a frame and a row's texts; nothing is sent from here.

/** Why a request can't be shown whose texts the page has not stored whole. */
const CUT_PROMPT = "The page holds the beginning of this prompt only, so its request can't be made here.";

/** What is said of a request with images. */
const NOT_WHOLE = "The page holds no images: in the request they are references, so it is not whole and can't be sent as it is.";

/** Controls that a JSON text may hold as they are, and that a terminal obeys while a line is pasted into it. */
const TERMINAL_CONTROL = /[\u007f-\u009f]/g;

/**
 * The texts of a row's slots, in order: `{slots, why}`; `why` says in words why no body can be made of them, else "".
 * `prompt`: the row's cell `{text, length, isCut}` or null; `more`: what the page knows of the row besides, or null.
 */
function promptSlots(frame, prompt, more) {
  if (frame && !slotCount(frame)) return { slots: [], why: "" };
  if (!frame || !prompt) return { slots: [], why: more?.why || "This call has no prompt here." };
  const lengths = more?.slots ?? [prompt.length];
  const slots = [];
  let begin = 0;
  for (const length of lengths) {
    slots.push(prompt.text.slice(begin, begin + length));
    begin += length;
  }
  return { slots, why: prompt.isCut || prompt.text.length < begin ? CUT_PROMPT : "" };
}

/** How many slots the body of a frame has, the unused ones between them not counted. */
function slotCount(frame) {
  return new Set(frame.body.map(slotOf).filter((slot) => slot !== null)).size;
}

/** The slot of a piece of a body; null for a text that is the same in all rows. */
function slotOf(piece) {
  return typeof piece === "number" ? piece : piece.raw ?? null;
}

/** The text of a piece: as it is, or as JSON without its quotes. */
function pieceText(piece, slots) {
  if (typeof piece === "string") return piece;
  if (typeof piece === "number") return JSON.stringify(slots[piece]).slice(1, -1);
  return piece.raw === undefined ? piece.text : slots[piece.raw];
}

/** The body of a request as it was sent, byte for byte; of images it has references in the place of bytes. */
function requestBody(frame, slots) {
  return frame.body.map((piece) => pieceText(piece, slots)).join("");
}

/** The SHA-256 that identifies a request, in hexadecimal; "" where it can't be computed here. */
async function requestHash(frame, slots) {
  const digest = globalThis.crypto?.subtle;
  if (!digest || frame.hash === null) return "";
  const hashed = frame.body.filter((piece) => !piece.unhashed).map((piece) => pieceText(piece, slots));
  const bytes = new TextEncoder().encode(frame.hash + hashed.join(""));
  const found = new Uint8Array(await digest.digest("SHA-256", bytes));
  return Array.from(found, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/**
 * Whether the request that was made again is the one that was sent: `{is, words}`, `is` one of "same", "differs",
 * "unsent", "unknown". `stored`: the beginning of the row's `request_hash`, or null; `why`: as `promptSlots` has it.
 */
async function requestVerdict(frame, slots, stored, why = "") {
  if (!stored) return { is: "unsent", words: "No request was sent for this call." };
  if (why) return { is: "unknown", words: why };
  const { is, words } = await comparedRequest(frame, slots, stored);
  return { is, words: frame.images ? `${words} ${NOT_WHOLE}` : words };
}

/** The same without a word about images. */
async function comparedRequest(frame, slots, stored) {
  const hash = await requestHash(frame, slots);
  if (!hash) {
    const words = frame.hash === null
      ? "Rendered again; its images were not read, so it can't be compared with the request that was sent."
      : "Rendered again; this browser can't compare it with the request that was sent.";
    return { is: "unknown", words };
  }
  if (hash.startsWith(stored)) return { is: "same", words: "Rendered again; it is the request that was sent." };
  const words = "Rendered again; it differs from the request that was sent: the job, a setting of a session, or the rules "
    + "by which prompts are rendered were others then.";
  return { is: "differs", words };
}

/** The messages of a request: `[{role, parts}]`; a part is `{text}` or `{image, kind, detail}`. */
function requestParts(frame, slots) {
  if (frame.messages === null) return partsOfBody(frame.format, requestBody(frame, slots));
  return frame.messages.map(({ role, parts }) => ({ role, parts: parts.map((part) => shownPart(part, slots)) }));
}

/** A part of a message as a reader sees it. A prompt that was cut has no text for its last slots. */
function shownPart(part, slots) {
  if (part.text !== undefined) return { text: part.text };
  if (part.slot !== undefined) return { text: slots[part.slot] ?? "" };
  const name = slots[part.image] ?? "";
  return { image: part.digest ? `sha256:${name}` : name, kind: part.kind ?? "", detail: part.detail ?? "" };
}

/** The messages of a body that came whole from the input; as one text where it can't be read, as where it was cut. */
function partsOfBody(format, body) {
  let values = null;
  try {
    values = JSON.parse(body);
  } catch {
    // shown as it is
  }
  const turns = turnsOf(format, values);
  if (!turns.length) return [{ role: "request", parts: [{ text: body }] }];
  return turns.map(([role, content]) => ({ role: String(role ?? "user"), parts: partsOfContent(content) }));
}

/** Role and content of each message of a body, the system's first. */
function turnsOf(format, values) {
  if (values === null || typeof values !== "object") return [];
  const names = { chat: [null, "messages"], responses: ["instructions", "input"], messages: ["system", "messages"] };
  const [system, turns] = names[format] ?? ["systemInstruction", "contents"];
  const found = [];
  if (system && values[system]) found.push(["system", values[system]]);
  for (const turn of asList(values[turns])) {
    found.push(isObject(turn) ? [turn.role, turn.content ?? turn.parts ?? turn] : ["user", turn]);
  }
  return found;
}

/** The parts of a content, which may be a text, a list or an object of parts. */
function partsOfContent(content) {
  const inner = isObject(content) && content.parts ? content.parts : content;
  return asList(inner).map(partOfContent);
}

/** A part of a content; one that is neither text nor image is shown as JSON. */
function partOfContent(part) {
  if (typeof part === "string") return { text: part };
  if (isObject(part) && typeof part.text === "string") return { text: part.text };
  const image = isObject(part) ? imageIn(part) : null;
  return image === null ? { text: JSON.stringify(part) ?? "" } : { image, kind: "", detail: "" };
}

/** What an image in a part of a body is called: its address, or that its bytes stand in the body; null for no image. */
function imageIn(part) {
  const held = part.image_url ?? part.source ?? part.inlineData ?? part.inline_data;
  const address = isObject(held) ? held.url ?? held.data : held;
  if (typeof address !== "string") return null;
  return /^https?:/i.test(address) ? address : "an image in the body";
}

/** The value as a list: itself, alone in one, or nothing. */
function asList(value) {
  if (Array.isArray(value)) return value;
  return value === undefined || value === null ? [] : [value];
}

/** Whether a value is an object with keys. */
function isObject(value) {
  return value !== null && typeof value === "object" && !Array.isArray(value);
}

/** What a variable of the environment may be called, so that a shell sees nothing but its name. */
const VARIABLE_NAME = /^[A-Za-z_][A-Za-z0-9_]*$/;

/** A text in single quotes for a POSIX shell, to which nothing in it means anything. */
function shellQuoted(text) {
  return `'${text.replaceAll("'", "'\\''")}'`;
}

/** A header for curl: its texts in single quotes, its variables of the environment in double ones. */
function shellHeader([name, ...pieces]) {
  const words = [`${name}: `, ...pieces];
  let line = "";
  let text = "";
  for (const word of words) {
    if (typeof word === "string" || !VARIABLE_NAME.test(word.env)) text += word.env ?? word;
    else {
      line += `${text && shellQuoted(text)}"$${word.env}"`;
      text = "";
    }
  }
  return `-H ${line}${text && shellQuoted(text)}`;
}

/**
 * The same JSON in one line without controls that a terminal obeys: a tab or line break, which stands between values
 * only, becomes a space, any other one its escape. A body without them stays as it is, byte for byte.
 */
function pasteable(body) {
  return body
    .replace(/[\t\r\n]/g, " ")
    .replace(TERMINAL_CONTROL, (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}`);
}

/** A line for a POSIX shell that sends the request with curl. The key is named by its variable and never in it. */
function curlCommand(frame, slots) {
  const [name, before, variable] = frame.auth;
  const headers = frame.headers.map(shellHeader).join(" ");
  const key = VARIABLE_NAME.test(variable) ? `-H "${name}: ${before}$${variable}"` : shellHeader([name, before + variable]);
  const asItIs = /[[\]{}]/.test(frame.url) ? "--globoff " : "";
  return `curl ${asItIs}${shellQuoted(frame.url)} ${headers} ${key} --data-raw ${shellQuoted(pasteable(requestBody(frame, slots)))}`;
}
