// Verifies requests with the JavaScript library of Standard Webhooks, and ed25519 with Node itself.
//
// Standard input: a line of JSON per request, {secret, headers, body (base64)}.
// Standard output: a line per request, "ok" or why not.
import { createPublicKey, verify } from "node:crypto";
import { createRequire } from "node:module";
import { createInterface } from "node:readline";

const { Webhook } = createRequire(import.meta.url)("standardwebhooks");

// DER of an ed25519 public key (RFC 8410) but for the key itself.
const PREFIX = Buffer.from("302a300506032b6570032100", "hex");

function verifyAsymmetric(publicKey, body, headers) {
	const key = createPublicKey({
		key: Buffer.concat([PREFIX, Buffer.from(publicKey.slice("whpk_".length), "base64")]),
		format: "der",
		type: "spki",
	});
	const message = Buffer.concat([
		Buffer.from(`${headers["webhook-id"]}.${headers["webhook-timestamp"]}.`), body]);
	const signatures = headers["webhook-signature"].split(" ")
		.filter((text) => text.startsWith("v1a,"));
	if (!signatures.some((text) => verify(null, message, key, Buffer.from(text.slice(4), "base64"))))
		throw new Error("No matching signature found");
}

for await (const line of createInterface({ input: process.stdin })) {
	const { secret, headers, body } = JSON.parse(line);
	const bytes = Buffer.from(body, "base64");
	try {
		if (secret.startsWith("whpk_"))
			verifyAsymmetric(secret, bytes, headers);
		else
			new Webhook(secret).verify(bytes.toString("utf8"), headers, { jsonParse: false });
		console.log("ok");
	} catch (error) {
		console.log(error.message);
	}
}
