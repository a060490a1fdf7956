/** Records of a state.mongodb component. Its documents: state/mongodb/mongodb.go of dapr/components-contrib. */
import mongoose from "mongoose";
import { kindOf } from "./servers.js";
import {
  BATCH,
  byKey,
  type Opened,
  pages,
  portions,
  type Row,
  recordsOf,
  type StateStore,
} from "./stores.js";
import { StartError } from "./topology.js";

interface Document {
  _id: string;
  value: unknown;
  _etag: string;
  _ttl: Date | null;
}

const DUPLICATE_KEY = 11000;

/** Connects. @throws StartError if the component does not say where the server is */
export async function openMongodb({ component, prefix }: Opened): Promise<StateStore> {
  const { metadata, name } = component;
  const { address, user = "", password = "", database = "" } = kindOf(component)?.read(component) ?? {};
  if (address === undefined || database === "")
    throw new StartError(`${name}: it names no host and databaseName, which is how MongoDB is found here`);
  const account = password === "" ? "" : `${encodeURIComponent(user)}:${encodeURIComponent(password)}@`;
  const params = (metadata.params ?? "").replace(/^(?=[^?])/, "?");
  const client = new mongoose.mongo.MongoClient(`mongodb://${account}${address}/${database}${params}`, {
    serverSelectionTimeoutMS: 10_000,
  });
  await client.connect();
  const collection = client.db(database).collection<Document>(metadata.collectionName ?? "daprCollection", {
    writeConcern: {
      w: /^\d+$/.test(metadata.writeconcern ?? "1") ? Number(metadata.writeconcern ?? 1) : "majority",
      j: true,
    },
  });
  // All keys that begin with the prefix: those from it to the next text of the same length.
  const end =
    prefix === ""
      ? {}
      : { $lt: prefix.slice(0, -1) + String.fromCodePoint((prefix.codePointAt(prefix.length - 1) ?? 0) + 1) };
  const from = (key: string) => ({ _id: { $gt: key, ...end } });

  return {
    place: `mongodb ${address} ${database} ${collection.collectionName} ${prefix}`,
    read: (after) =>
      pages(
        async (last) =>
          (await collection.find(from(last)).sort({ _id: 1 }).limit(BATCH).toArray()).map(asRow),
        prefix,
        after ?? prefix,
      ),
    async get(keys) {
      const found = await collection.find({ _id: { $in: keys.map((key) => prefix + key) } }).toArray();
      return byKey(recordsOf(found.map(asRow), prefix));
    },
    async write(records) {
      for (const portion of portions(records)) {
        const documents = portion.map(({ key, value, expires }) => ({
          _id: prefix + key,
          // As the component stores bytes, which is what it answers again. It would make a document of an object, and answer
          // that with other numbers and without some names; an update would be mixed into it.
          value,
          _etag: crypto.randomUUID(),
          _ttl: expires === undefined ? null : new Date(expires),
        }));
        try {
          await collection.insertMany(documents, { ordered: false });
        } catch (error) {
          // After an interruption some are there already.
          if ((error as { code?: number }).code !== DUPLICATE_KEY) throw error;
          for (const document of documents)
            await collection.replaceOne({ _id: document._id }, document, { upsert: true });
        }
      }
    },
    count: () => collection.countDocuments(from(prefix)),
    async clear() {
      await collection.deleteMany(from(prefix));
    },
    close: () => client.close(),
  };
}

const asRow = ({ _id, value, _ttl }: Document): Row => ({
  key: _id,
  // A text is answered as it is, by the component too.
  value: typeof value === "string" ? value : JSON.stringify(value),
  expires: _ttl?.getTime(),
});
