/** The frame of a program for the command line. */
import { StartError } from "./topology.js";

/**
 * Runs a program: its options, or how to use it; what people did wrong as a sentence, without a stack.
 * Exit code 2: the options can't be understood; 1: it failed; or what `run` sets.
 * @param parse throws, with a sentence for people, if the options can't be understood
 * @param stopping what is said when a signal comes; who ends the process is the guard of a running system
 */
export async function command<Options>(
  usage: string,
  parse: (args: string[]) => Options | "help",
  run: (options: Options) => Promise<void>,
  stopping?: string,
): Promise<void> {
  let options: Options | "help";
  try {
    options = parse(process.argv.slice(2));
  } catch (error) {
    console.error(`${(error as Error).message}\n\n${usage}`);
    process.exitCode = 2;
    return;
  }
  if (options === "help") return console.log(usage);
  let isStopping = false;
  if (stopping !== undefined)
    for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"])
      process.once(signal, () => {
        isStopping = true;
        console.log(`\n${stopping}`);
      });
  try {
    await run(options);
  } catch (error) {
    process.exitCode = 1;
    if (isStopping) return; // what fails meanwhile fails because of that
    console.error(error instanceof StartError ? error.message : error);
  }
}
