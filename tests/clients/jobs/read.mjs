// A job's program in JavaScript that reads its training data from storage, and knows nothing of jobcred. Prints JSON: how
// many rows it found, or the error.
import { createRequire } from "node:module";

// The packages are not beside this file.
const require = createRequire(`${process.env.NODE_MODULES}/package.json`);
const { DefaultAzureCredential } = require("@azure/identity");
const { BlobServiceClient } = require("@azure/storage-blob");

try {
  const url = "https://devstoreaccount1.blob.core.windows.net";
  const service = new BlobServiceClient(url, new DefaultAzureCredential());
  const data = await service.getContainerClient("data").getBlobClient("train.csv").downloadToBuffer();
  const rows = data.toString().trim().split("\n").length - 1;
  console.log(JSON.stringify({ rows, error: null, message: null }));
} catch (error) {
  console.log(JSON.stringify({ rows: null, error: error.name, message: error.message }));
}
