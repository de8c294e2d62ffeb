// A job's program in JavaScript that gets tokens with Azure's own SDK and knows nothing of jobcred.
//
// Each line of its standard input asks once, and is answered by a line of JSON: whose token came of it, or the error. It never
// prints a token. {"kind": "managed" | "default", "client_id": C?, "fresh": true?}
import { createRequire } from "node:module";
import { createInterface } from "node:readline";

// The packages are not beside this file.
const require = createRequire(`${process.env.NODE_MODULES}/package.json`);
const { DefaultAzureCredential, ManagedIdentityCredential } = require("@azure/identity");

const SCOPE = "https://storage.azure.com/.default";
const credentials = new Map();

function credential({ kind, client_id: clientId, fresh }) {
  const name = JSON.stringify([kind, clientId]);
  if (fresh || !credentials.has(name)) {
    const named = clientId ? { clientId } : {};
    const made =
      kind === "default"
        ? new DefaultAzureCredential(clientId ? { managedIdentityClientId: clientId } : {})
        : new ManagedIdentityCredential(named);
    credentials.set(name, made);
  }
  return credentials.get(name);
}

async function ask(request) {
  try {
    const { token } = await credential(request).getToken(SCOPE);
    const { oid, aud } = JSON.parse(Buffer.from(token.split(".")[1], "base64url"));
    return { oid, aud, error: null, message: null };
  } catch (error) {
    return { oid: null, aud: null, error: error.name, message: error.message };
  }
}

for await (const line of createInterface({ input: process.stdin })) {
  console.log(JSON.stringify(await ask(JSON.parse(line))));
}
