import js from "@eslint/js";
import jsxA11y from "eslint-plugin-jsx-a11y";
import reactHooks from "eslint-plugin-react-hooks";
import tseslint from "typescript-eslint";

// Keys pressed on a link bubble to the table or menu around it, which moves between its links.
const mouse = { handlers: ["onClick", "onMouseDown", "onMouseUp"] };

export default tseslint.config(
  { linterOptions: { reportUnusedDisableDirectives: "error" } },
  js.configs.recommended,
  tseslint.configs.strict,
  tseslint.configs.stylistic,
  jsxA11y.flatConfigs.recommended,
  {
    plugins: { "react-hooks": reactHooks },
    rules: {
      // The plugin's other rules are for React's compiler, which is not used here.
      "react-hooks/rules-of-hooks": "error",
      "react-hooks/exhaustive-deps": "error",
      // Used in dialogs and forms that a person has just opened: there the focus belongs inside.
      "jsx-a11y/no-autofocus": "off",
      "jsx-a11y/no-noninteractive-element-interactions": ["error", mouse],
      "jsx-a11y/no-static-element-interactions": ["error", mouse],
      // The log's lines scroll, and what scrolls is reached by keyboard.
      "jsx-a11y/no-noninteractive-tabindex": ["error", { tags: [], roles: ["tabpanel", "group"] }],
    },
  },
);
