// Pictures with a palette of 256 colours: a third of what a screenshot takes, and of a page hardly to be told from it.
import { crc32, deflateSync } from "node:zlib";
import type { BrowserContext } from "playwright-core";

const signature = Buffer.from([0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a]);
const colourTypeAt = 25; // in the header chunk, after the signature
const withPalette = 3;

/** Whether a file is a PNG whose colours are in a palette. */
export function paletteOf(png: Buffer): boolean {
  return png.subarray(0, signature.length).equals(signature) && png[colourTypeAt] === withPalette;
}

function chunk(type: string, data: Buffer): Buffer {
  const body = Buffer.concat([Buffer.from(type, "latin1"), data]);
  const head = Buffer.alloc(4);
  head.writeUInt32BE(data.length);
  const sum = Buffer.alloc(4);
  sum.writeUInt32BE(crc32(body));
  return Buffer.concat([head, body, sum]);
}

/** The picture with the 256 colours that stand for its own best; each pixel takes the nearest of them. */
export async function palettePng(context: BrowserContext, picture: Buffer): Promise<Buffer> {
  // Browsers can read pictures: a blank page of one does.
  const blank = await context.newPage();
  const { width, height, palette, pixels } = await blank.evaluate(async (data) => {
    const bitmap = await createImageBitmap(await (await fetch(`data:image/png;base64,${data}`)).blob());
    const { width, height } = bitmap;
    const canvas = new OffscreenCanvas(width, height).getContext("2d");
    if (canvas === null) throw new Error("no canvas");
    canvas.drawImage(bitmap, 0, 0);
    const rgba = canvas.getImageData(0, 0, width, height).data;
    const at = (i: number) => ((rgba[i] ?? 0) << 16) | ((rgba[i + 1] ?? 0) << 8) | (rgba[i + 2] ?? 0);
    const often = new Map<number, number>();
    for (let i = 0; i < rgba.length; i += 4) often.set(at(i), (often.get(at(i)) ?? 0) + 1);
    const far = (a: number, b: number) =>
      [16, 8, 0].reduce((sum, s) => sum + (((a >> s) & 255) - ((b >> s) & 255)) ** 2, 0);
    // Next comes the colour that is missed most: by how many pixels, and by how much.
    const colours = [...often].map(([colour, pixels]) => ({ colour, pixels, missed: Infinity, index: 0 }));
    const palette: number[] = [];
    while (palette.length < Math.min(256, colours.length)) {
      const next = colours.reduce((a, b) => (b.pixels * b.missed > a.pixels * a.missed ? b : a)).colour;
      for (const c of colours) {
        const missed = far(c.colour, next);
        if (missed < c.missed) [c.missed, c.index] = [missed, palette.length];
      }
      palette.push(next);
    }
    const index = new Map(colours.map((c) => [c.colour, c.index]));
    let pixels = "";
    for (let i = 0; i < rgba.length; i += 4) pixels += String.fromCharCode(index.get(at(i)) ?? 0);
    return { width, height, palette, pixels };
  }, picture.toString("base64"));
  await blank.close();
  const header = Buffer.alloc(13); // size, 8 bits, a palette, and no more
  header.writeUInt32BE(width, 0);
  header.writeUInt32BE(height, 4);
  header.set([8, withPalette], 8);
  const rows = Buffer.alloc((width + 1) * height); // each begins with its filter, which is none
  for (let y = 0; y < height; y++) rows.write(pixels.slice(y * width, (y + 1) * width), y * (width + 1) + 1, "latin1");
  return Buffer.concat([
    signature,
    chunk("IHDR", header),
    chunk("PLTE", Buffer.from(palette.flatMap((c) => [c >> 16, (c >> 8) & 255, c & 255]))),
    chunk("IDAT", deflateSync(rows, { level: 9 })),
    chunk("IEND", Buffer.alloc(0)),
  ]);
}
