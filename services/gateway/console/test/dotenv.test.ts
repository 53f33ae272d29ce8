import { describe, expect, test } from "vitest";
import { parseDotenv } from "../src/lib/dotenv";
import { becomesSecret, readPasted, withPasted } from "../src/lib/variables";

const values = (text: string) => {
  const { entries, problems } = parseDotenv(text);
  expect(problems).toEqual([]);
  return Object.fromEntries(entries.map((e) => [e.name, e.value]));
};

describe("a .env", () => {
  test.each<[what: string, text: string, is: Record<string, string>]>([
    ["plain lines, comments and blank ones", "# first\n\nA=1\n  # more\n B = two words \n", { A: "1", B: "two words" }],
    ["export", "export A=1\nexport\tB='2'\nexported=3\nexport=4", { A: "1", B: "2", exported: "3", export: "4" }],
    ["comments behind values", "A=1 # one\nB='2' # two\nC=\"3\"#three", { A: "1", B: "2", C: "3" }],
    [
      "# within values",
      "A=#fff\nB=a#b\nC='x # y'\nD=\"x # y\"\nE= # none",
      {
        A: "#fff",
        B: "a#b",
        C: "x # y",
        D: "x # y",
        E: "",
      },
    ],
    ["empty values", "A=\nB=''\nC=\"\"\nD=", { A: "", B: "", C: "", D: "" }],
    [
      "escapes within double quotes alone",
      String.raw`A="a\nb\t\"c\" \\n \$HOME \x"` + "\n" + String.raw`B='a\nb'` + "\n" + String.raw`C=a\nb`,
      {
        A: 'a\nb\t"c" \\n $HOME \\x',
        B: String.raw`a\nb`,
        C: String.raw`a\nb`,
      },
    ],
    [
      "values of several lines",
      'A="-----BEGIN-----\nx=y\n# no comment\n-----END-----"\nB=\'1\n2\'\nC=`it\'s\n"so"`\nD=4',
      {
        A: "-----BEGIN-----\nx=y\n# no comment\n-----END-----",
        B: "1\n2",
        C: 'it\'s\n"so"',
        D: "4",
      },
    ],
    ["lines that end as on Windows", "\ufeffA=1\r\nB=\"x\r\ny\"\r\n\r\nC='3'\r\n", { A: "1", B: "x\ny", C: "3" }],
    ["quotes and equals signs within", 'A=it\'s\nB=a=b==\nC=x "y"', { A: "it's", B: "a=b==", C: 'x "y"' }],
    ["nothing filled in", 'A=$HOME\nB="${A}"', { A: "$HOME", B: "${A}" }],
    ["blanks within quotes", "A='  x  '", { A: "  x  " }],
    ["nothing", "", {}],
  ])("%s", (_, text, is) => expect(values(text)).toEqual(is));

  test("the last of one name counts, and the lines of the others are told", () => {
    expect(parseDotenv('A=1\nB=2\nA="3\n4"\nA=5')).toEqual({
      problems: [],
      entries: [
        { name: "B", value: "2", line: 2, earlier: [] },
        { name: "A", value: "5", line: 5, earlier: [1, 3] },
      ],
    });
  });

  test("what cannot be read is told with its line, and the rest is read", () => {
    const { entries, problems } = parseDotenv(
      ['A="1', "2", '3"', "hidden-value", "=x", 'B="open', "C='x' y", "export D", "E=it's", "F='it\\'s'"].join("\n"),
    );
    expect(entries.map((e) => [e.name, e.line])).toEqual([
      ["A", 1],
      ["E", 9],
    ]);
    expect(problems.map((p) => [p.line, p.name, p.text])).toEqual([
      [4, undefined, "Has no “=”. Write NAME=value."],
      [5, undefined, "Has no name."],
      [6, "B", 'The quote " that begins the value is not closed.'],
      [7, "C", "There is more after the closing quote '."],
      [8, undefined, "Has no “=”. Write NAME=value."],
      [10, "F", "There is more after the closing quote '."],
    ]);
    expect(JSON.stringify(problems)).not.toContain("hidden-value");
  });
});

describe("what pasting does to an app's variables", () => {
  const there = [
    { name: "PLAIN", secret: false, value: "old" },
    { name: "TOKEN", secret: true },
    { name: "KEPT", secret: true },
    { name: "EMPTIED", secret: false, value: "old" },
  ];

  test("each is new, replaces, or stays, and is a secret unless there is nothing to hide", () => {
    const { rows, problems } = readPasted("NEW=1\nPLAIN=2\nTOKEN=3\nKEPT=\nEMPTIED=\nBARE=", there);
    expect(problems).toEqual([]);
    expect(rows.map((r) => [r.name, r.change, becomesSecret(r, new Set())])).toEqual([
      ["NEW", "new", true],
      ["PLAIN", "replaces", true],
      ["TOKEN", "replaces", true],
      ["KEPT", "stays", true],
      ["EMPTIED", "replaces", false],
      ["BARE", "new", false],
    ]);
    expect(withPasted(there, rows, new Set(["PLAIN", "TOKEN"]))).toEqual([
      { name: "PLAIN", secret: false, value: "2" },
      { name: "TOKEN", secret: true, value: "3" },
      { name: "KEPT", secret: true },
      { name: "EMPTIED", secret: false, value: "" },
      { name: "NEW", secret: true, value: "1" },
      { name: "BARE", secret: false, value: "" },
    ]);
  });

  test("names and values that the server would refuse are told before, in the order of the lines", () => {
    const long = "x".repeat(120 * 1024);
    const { rows, problems } = readPasted(
      `9A=1\nDEVPILOT_X=1\nbroken\na.b=1\nLONG=${long}y\nFITS=${long}\nNUL=a\0b\n${"N".repeat(129)}=1`,
      [],
    );
    expect(rows.map((r) => r.name)).toEqual(["FITS"]);
    expect(problems.map((p) => [p.line, p.text.split(" ").slice(0, 3).join(" ")])).toEqual([
      [1, "Letters, digits and"],
      [2, "Names that begin"],
      [3, "Has no “=”."],
      [4, "Letters, digits and"],
      [5, "Is longer than"],
      [7, "Has a NUL"],
      [8, "Letters, digits and"],
    ]);
  });
});
