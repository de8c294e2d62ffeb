// A job's program in JavaScript that asks for a token in the way that its argument names, and knows nothing of jobcred:
//
//   got URL    what a web service does that fetches a URL for others, with the npm package got
//   fetch      IDENTITY_ENDPOINT, with the fetch that is built into Node
//   msal       the same, with @azure/msal-node
//
// It prints one line of JSON: the status, whose token came of it, or the error. It never prints a token.
import { createRequire } from "node:module";

// The packages are not beside this file.
const require = createRequire(`${process.env.NODE_MODULES}/package.json`);
const RESOURCE = "https://storage.azure.com";

function owner(token) {
  return token ? JSON.parse(Buffer.from(token.split(".")[1], "base64url")).oid : null;
}

const ways = {
  async got(url) {
    const got = require("got");
    const { statusCode, body } = await got(url, { throwHttpErrors: false, retry: 0, responseType: "json" });
    return { status: statusCode, oid: owner(body.access_token), error: body.error ?? null };
  },
  async fetch() {
    const url = `${process.env.IDENTITY_ENDPOINT}?api-version=2019-08-01&resource=${RESOURCE}`;
    const answer = await fetch(url, { headers: { "x-identity-header": process.env.IDENTITY_HEADER } });
    const body = await answer.json();
    return { status: answer.status, oid: owner(body.access_token), error: body.message ?? null };
  },
  async msal() {
    const { ManagedIdentityApplication } = require("@azure/msal-node");
    const { accessToken } = await new ManagedIdentityApplication().acquireToken({ resource: RESOURCE });
    return { status: 200, oid: owner(accessToken), error: null };
  },
};

const [way, ...rest] = process.argv.slice(2);
let line;
try {
  line = await ways[way](...rest);
} catch (error) {
  line = { status: null, oid: null, error: `${error.name}: ${error.message}` };
}
console.log(JSON.stringify(line));
