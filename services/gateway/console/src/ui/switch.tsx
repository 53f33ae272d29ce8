import type { ReactNode } from "react";
import { Switch as AriaSwitch } from "react-aria-components/Switch";

/** A switch with its label. */
export function Switch({
  selected,
  onChange,
  disabled,
  children,
  describedBy,
}: {
  selected: boolean;
  onChange: (value: boolean) => void;
  disabled?: boolean;
  children: ReactNode;
  describedBy?: string | undefined;
}) {
  return (
    <AriaSwitch
      className="switch"
      isSelected={selected}
      onChange={onChange}
      isDisabled={disabled ?? false}
      aria-describedby={describedBy}
    >
      <span className="track" aria-hidden="true" />
      <span>{children}</span>
    </AriaSwitch>
  );
}
