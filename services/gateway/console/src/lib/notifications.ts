import type { NotificationTarget } from "../api/client";

type Kind = NotificationTarget["kind"];
export type NotificationEvent = NotificationTarget["events"][number];

/** How a target is reached, in words. */
export const kindWords: Record<Kind, string> = {
  WEBHOOK: "Webhook",
  SLACK: "Slack",
  EMAIL: "E-mail",
};

/** What one can hear of, in words. */
export const eventWords: Record<NotificationEvent, string> = {
  DEPLOYMENT_FAILED: "A deployment failed",
  DEPLOYMENT_RECOVERED: "A deployment succeeded again",
  APP_BEHIND: "A push is not live for long",
  CONNECTION: "The connection to Bitbucket is failing",
  WEBHOOK_NEEDS_PERSON: "A webhook needs you",
  DISK_LOW: "A server has too little disk",
  KEY_EXPIRING: "An API key expires soon",
  CERTIFICATE_EXPIRING: "The certificate of this address expires soon",
};

/** What can be chosen, in the order of the form. */
export const choosable: NotificationEvent[] = [
  "DEPLOYMENT_FAILED",
  "DEPLOYMENT_RECOVERED",
  "APP_BEHIND",
  "CONNECTION",
  "WEBHOOK_NEEDS_PERSON",
  "DISK_LOW",
  "KEY_EXPIRING",
  "CERTIFICATE_EXPIRING",
];
