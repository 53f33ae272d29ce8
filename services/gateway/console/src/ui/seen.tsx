import { useEffect, useRef, useState, type ReactNode } from "react";

/** About what a picture takes, in px: its place is kept while it loads, so that what follows stays where it is. */
export const pictureHeight = 224;

/** What is loaded and drawn only when it comes into sight; until then its place is kept, so that nothing jumps. */
export function WhenSeen({ height, children }: { height: number; children: ReactNode }) {
  const place = useRef<HTMLDivElement>(null);
  const [seen, setSeen] = useState(false);
  useEffect(() => {
    if (seen || place.current === null) return undefined;
    const observer = new IntersectionObserver((entries) => {
      if (entries.some((e) => e.isIntersecting)) setSeen(true);
    });
    observer.observe(place.current);
    return () => observer.disconnect();
  }, [seen]);
  return seen ? <>{children}</> : <div ref={place} style={{ minHeight: height }} />;
}
