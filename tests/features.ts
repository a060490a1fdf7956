/**
 * In what stores and brokers differ, as told in docs/backends.md: the suite (suites.ts) looks whether it is so, and tests/backends.test.ts
 * whether the page says so. All of it is of the component as Dapr 1.18 makes it; what kit/ makes of it is the same everywhere.
 */

/** A folder of components/ that holds stores. */
export type StoreFolder = "embedded" | "mysql" | "mongodb" | "redis" | "postgresql";

export interface StoreFeatures {
  /** Several keys are written in one step, all or none. */
  atomicBatches: boolean;
  /** A value is stored as the JSON that it is. */
  plainValues: boolean;
  /** A key that was created in a batch is not created again. */
  guardedBatches: boolean;
  /** An update does not bring a deleted key back. */
  staysDeleted: boolean;
  /** A save without a lifetime lifts an earlier one. */
  liftsTtl: boolean;
  /** The key of an expired value may be created again at once. */
  freesExpired: boolean;
  /** Keys may be longer than 255 characters. */
  longKeys: boolean;
  /** Values may be nested as deep as one likes. */
  deepValues: boolean;
}

const all: StoreFeatures = {
  ...{ atomicBatches: true, plainValues: true, guardedBatches: true, staysDeleted: true },
  ...{ liftsTtl: true, freesExpired: true, longKeys: true, deepValues: true },
};

export const storeFeatures: Record<StoreFolder, StoreFeatures> = {
  embedded: all,
  mysql: { ...all, freesExpired: false, longKeys: false, deepValues: false },
  // The stand-in, like a mongod that is no replica set, has no transactions at all.
  mongodb: {
    ...all,
    ...{
      atomicBatches: false,
      plainValues: false,
      guardedBatches: false,
      staysDeleted: false,
      freesExpired: false,
    },
  },
  redis: {
    ...all,
    ...{
      atomicBatches: false,
      plainValues: false,
      guardedBatches: false,
      staysDeleted: false,
      liftsTtl: false,
    },
  },
  postgresql: all,
};

/** A folder of components/ that holds `events` for a broker that is run here. */
export type BrokerFolder = "embedded" | "rabbitmq";

export interface BrokerFeatures {
  /** What was published before an app's first start is there for it. */
  keepsForLater: boolean;
}

export const brokerFeatures: Record<BrokerFolder, BrokerFeatures> = {
  embedded: { keepsForLater: true },
  rabbitmq: { keepsForLater: false },
};

/** The rows of the tables in docs/backends.md. */
export const storeRows: Record<keyof StoreFeatures, string> = {
  atomicBatches: "several keys are written in one step, all or none",
  plainValues: "a value is stored as the JSON that it is",
  guardedBatches: "a key created in a batch is not created again",
  staysDeleted: "an update does not bring a deleted key back",
  liftsTtl: "a save without a lifetime lifts an earlier one",
  freesExpired: "an expired key may be created again at once",
  longKeys: "keys longer than 255 characters",
  deepValues: "JSON nested 100 deep",
};

export const brokerRows: Record<keyof BrokerFeatures, string> = {
  keepsForLater: "an app that comes later hears what was said before",
};
