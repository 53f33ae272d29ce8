// How many releases an app keeps beside the live one, as the server takes it.
export const retentionPattern = /^([1-9]|[1-4][0-9]|50)$/;
export const retentionWords = "A whole number from 1 to 50.";
