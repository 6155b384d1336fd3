// Proofs about hidden numbers, by docs/FORMAT.md, section 13, and npm's @noble/curves alone.
//
//     node check.mjs PACKAGES FOLDER
//
// PACKAGES has node_modules; FOLDER has generators.json, commitment.json, keys.json and proof files
// (*.proof.json). Prints one JSON object: by file null where it holds, or why it does not.

import { createHash, createHmac } from "node:crypto";
import { readFileSync, readdirSync } from "node:fs";
import { createRequire } from "node:module";
import { join, resolve } from "node:path";

const [packages, folder] = process.argv.slice(2);
const { secp256k1 } = createRequire(resolve(packages, "package.json"))("@noble/curves/secp256k1");
const Point = secp256k1.Point;
const n = Point.Fn.ORDER;

const mod = (a) => ((a % n) + n) % n;
const power = (base, exponent) => {
  let found = 1n;
  for (let b = mod(base), e = exponent; e > 0n; e >>= 1n, b = (b * b) % n)
    if (e & 1n) found = (found * b) % n;
  return found;
};
const inverse = (a) => power(a, n - 2n);
const big = (bytes) => BigInt("0x" + Buffer.from(bytes).toString("hex"));
const sum = (numbers) => numbers.reduce((a, b) => mod(a + b), 0n);
const hash = (name, ...parts) => createHash(name).update(Buffer.concat(parts)).digest();
const u32 = (value) => { const b = Buffer.alloc(4); b.writeUInt32BE(value); return b; };
const need = (holds, why) => { if (!holds) throw new Error(why); };

const decode = (bytes) => {
  need(bytes.length === 33 && (bytes[0] === 2 || bytes[0] === 3), "no point");
  return Point.fromHex(Buffer.from(bytes).toString("hex"));
};
const encode = (point) => Buffer.from(point.toBytes(true));
const total = (terms) => {
  const known = terms.filter(([scalar]) => mod(scalar) !== 0n);
  return Point.msm(known.map(([, point]) => point), known.map(([scalar]) => mod(scalar)));
};
const isNothing = (terms) => total(terms).equals(Point.ZERO);

const generators = new Map();
const generator = (name) => {
  for (let counter = 0; !generators.has(name); counter++) {
    const x = hash("sha256", Buffer.from(`ml-provenance/generator/v1\0${name}\0`), u32(counter));
    try { generators.set(name, decode(Buffer.concat([Buffer.of(2), x]))); } catch { /* no x */ }
  }
  return generators.get(name);
};

const canonical = (value) => {
  if (Array.isArray(value)) return `[${value.map(canonical).join(",")}]`;
  if (value === null || typeof value !== "object") return JSON.stringify(value);
  const keys = Object.keys(value).sort();
  return `{${keys.map((key) => `${JSON.stringify(key)}:${canonical(value[key])}`).join(",")}}`;
};
const keysAre = (value, names) =>
  need(value && Object.keys(value).sort().join(" ") === names, `keys other than ${names}`);

class Transcript {
  constructor(statement) {
    this.state = hash("sha256", Buffer.from("ml-provenance/transcript/v1\0"), statement);
  }
  append(label, data) {
    const name = Buffer.from(label);
    const head = [this.state, Buffer.of(name.length), name, u32(data.length), data];
    this.state = hash("sha256", ...head);
  }
  challenge(label) {
    this.append(label, Buffer.alloc(0));
    const found = mod(big(hash("sha512", this.state)));
    need(found !== 0n, "a challenge that is zero");
    return found;
  }
}

const reader = (proof, transcript) => {
  let at = 0;
  const take = (size) => {
    need(at + size <= proof.length, "too short");
    return proof.subarray(at, (at += size));
  };
  const scalarOf = (bytes) => {
    const found = big(bytes);
    need(found < n, "a scalar that is too large");
    return found;
  };
  return {
    take,
    scalarOf,
    point: (label) => {
      const bytes = take(33);
      transcript.append(label, bytes);
      return decode(bytes);
    },
    scalar: () => scalarOf(take(32)),
    end: () => need(at === proof.length, "bytes behind the proof"),
  };
};

const checkBounds = (points, proof, transcript) => {
  const read = reader(proof, transcript), size = 64 * points.length, base = generator("blinding");
  for (const each of points) transcript.append("V", encode(each));
  const A = read.point("A"), S = read.point("S");
  const y = transcript.challenge("y"), z = transcript.challenge("z");
  const T1 = read.point("T1"), T2 = read.point("T2");
  const x = transcript.challenge("x"), scalars = read.take(96);
  transcript.append("t", scalars);
  const [tau, mu, t] = [0, 32, 64].map((from) => read.scalarOf(scalars.subarray(from, from + 32)));
  const w = transcript.challenge("w"), rounds = [];
  for (let left = size; left > 1; left /= 2) {
    const L = read.point("L"), R = read.point("R");
    rounds.push({ L, R, u: transcript.challenge("u") });
  }
  const a = read.scalar(), b = read.scalar();
  read.end();

  const all = Array.from({ length: size }, (_, i) => i);
  const ys = all.map((i) => power(y, BigInt(i)));
  const ps = all.map((i) => mod(power(z, BigInt(2 + (i >> 6))) * (1n << BigInt(i & 63))));
  const delta = mod((z - z * z) * sum(ys) - z * sum(ps));
  const first = [[t - delta, Point.BASE], [tau, base], [-x, T1], [-x * x, T2]];
  points.forEach((each, at) => first.push([-power(z, BigInt(2 + at)), each]));
  need(isNothing(first), "the first equation");

  const second = [[1n, A], [x, S], [-mu, base], [w * (t - a * b), generator("inner")]];
  for (const i of all) {
    const s = rounds.reduce((product, { u }, k) =>
      mod(product * ((i >> (rounds.length - 1 - k)) & 1 ? u : inverse(u))), 1n);
    second.push([-z - a * s, generator(`left/${i}`)]);
    second.push([z + inverse(ys[i]) * (ps[i] - b * inverse(s)), generator(`right/${i}`)]);
  }
  for (const { u, L, R } of rounds) second.push([u * u, L], [power(inverse(u), 2n), R]);
  need(isNothing(second), "the second equation");
};

const checkEquality = ([first, second], proof, transcript) => {
  need(!first.equals(second), "one commitment");
  const read = reader(proof, transcript);
  transcript.append("V", encode(first));
  transcript.append("V", encode(second));
  const R = read.point("R"), s = read.scalar();
  read.end();
  const c = transcript.challenge("c");
  need(isNothing([[s, generator("blinding")], [-1n, R], [-c, first], [c, second]]), "the equation");
};

const bound = (text) => {
  if (text === null) return null;
  need(typeof text === "string" && /^(0|-?[1-9][0-9]*)$/.test(text), "no bound");
  need(BigInt.asIntN(64, BigInt(text)) === BigInt(text), "a bound of more than 64 bits");
  return BigInt(text);
};
const numberOf = (told) => {
  keysAre(told, "metric path point record root run scale seal");
  need(/^[0-9a-f]{66}$/.test(told.point) && Number.isInteger(told.scale), "no number");
  need(told.scale >= 0 && told.scale <= 12, "a scale that is too large");
  return decode(Buffer.from(told.point, "hex"));
};

const checkProof = (text) => {
  const file = JSON.parse(text);
  need(canonical(file) === text, "not in canonical form");
  keysAre(file, "proof statement v");
  need(file.v === 1 && /^([0-9a-f]{2})+$/.test(file.proof), "version, proof");
  const { statement } = file, proof = Buffer.from(file.proof, "hex");
  keysAre(statement, "at_least at_most equals number");
  const low = bound(statement.at_least), high = bound(statement.at_most);
  const transcript = new Transcript(Buffer.from(canonical(statement)));
  const point = numberOf(statement.number);
  if (statement.equals !== null) {
    need(low === null && high === null, "bounds of an equality");
    need(statement.equals.scale === statement.number.scale, "another scale");
    checkEquality([point, numberOf(statement.equals)], proof, transcript);
    return;
  }
  need(low !== null || high !== null, "no statement");
  need(low === null || high === null || low <= high, "bounds that exclude one another");
  const points = [];
  if (low !== null) points.push(total([[1n, point], [-low, Point.BASE]]));
  if (high !== null) points.push(total([[-1n, point], [high, Point.BASE]]));
  checkBounds(points, proof, transcript);
};

const read = (name) => readFileSync(join(folder, name), "utf8");
const checks = {
  "generators.json": () => {
    for (const [name, point] of Object.entries(JSON.parse(read("generators.json"))))
      need(encode(generator(name)).toString("hex") === point, name);
  },
  "commitment.json": () => {
    const told = JSON.parse(read("commitment.json")), keys = JSON.parse(read("keys.json"));
    const numbers = Buffer.alloc(16);
    numbers.writeBigUInt64BE(5n, 0);
    numbers.writeBigInt64BE(BigInt(told.value), 8);
    const text = Buffer.concat([Buffer.from(keys.producer, "hex"), numbers, Buffer.from("loss")]);
    const key = Buffer.from(told.blinding_key, "hex");
    const blinding = (big(createHmac("sha512", key).update(text).digest()) % (n - 1n)) + 1n;
    need(blinding === BigInt(`0x${told.blinding}`), "blinding");
    const terms = [[BigInt(told.value), Point.BASE], [blinding, generator("blinding")]];
    need(encode(total(terms)).toString("hex") === told.point, "point");
  },
};
for (const name of readdirSync(folder).filter((each) => each.endsWith(".proof.json")))
  checks[name] = () => checkProof(read(name));

const found = {};
for (const [name, check] of Object.entries(checks)) {
  try { check(); found[name] = null; } catch (error) { found[name] = String(error.message); }
}
console.log(JSON.stringify(found));
