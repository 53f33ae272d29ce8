/** For how long a key works: so many days, to the end of a day, or until it is revoked. */
export type Life = "7" | "30" | "90" | "365" | "day" | "never";

export const lifeWords: Record<Life, string> = {
  "7": "In 7 days",
  "30": "In 30 days",
  "90": "In 90 days",
  "365": "In a year",
  day: "After a day of my choice",
  never: "Never",
};

/** The time at which it ends; undefined for never, and while no day is chosen. A day ends at the reader's midnight. */
export function expiry(life: Life, day: string, now: number): string | undefined {
  if (life === "never") return undefined;
  if (life !== "day") {
    const end = new Date(now + Number(life) * 24 * 3600_000);
    end.setSeconds(0, 0);
    return end.toISOString();
  }
  const [year, month, date] = day.split("-").map(Number);
  if (year === undefined || month === undefined || date === undefined || day.length !== 10) return undefined;
  return new Date(year, month - 1, date + 1).toISOString();
}
