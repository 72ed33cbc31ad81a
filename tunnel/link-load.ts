/**
 * A frame of DATA from here on is of a call that has much to say. What small calls say is shorter, and however many there are,
 * another carrier would not be faster for them.
 */
const BULK_FRAME_BYTES = 16 * 1024
/** So much of it between two looks (4 MB/s at four a second) and a small call meets some of it on its way. Guess. */
const BULK_BYTES = 1024 * 1024
/** Weight of a look. With 1/4 three crowded ones in a row count, one does not, and five others end it. */
const LOOK_WEIGHT = 1 / 4
/** Crowded from the first share of looks on, until it is below the second. */
const CROWDED_FROM = 0.5
const CROWDED_UNTIL = 0.25
/** Looks for which the peer's word counts: it says so again at each of its own while it is so. */
const WORD_LOOKS = 4

/**
 * Whether small calls wait behind others on a link, judged a few times a second.
 *
 * Each end judges what it sends itself, and is told what the other one found: to a call it is all one which way is crowded.
 */
export class LinkLoad {
  /** Bytes either way since the last look; to be counted by the link. */
  passedBytes = 0
  /** … and between the last two. */
  recentBytes = 0
  #bulkBytes = 0
  #share = 0
  #isSendingCrowded = false
  #wordLooks = 0

  /** This end's own finding. */
  get isSendingCrowded(): boolean {
    return this.#isSendingCrowded
  }

  get isCrowded(): boolean {
    return this.#isSendingCrowded || this.#wordLooks > 0
  }

  onDataSent(bytes: number): void {
    if (bytes >= BULK_FRAME_BYTES) this.#bulkBytes += bytes
  }

  /** The peer says that what it sends is crowded. */
  onPeerWord(): void {
    this.#wordLooks = WORD_LOOKS
  }

  /** `isHeldUp`: something waits to be sent that only the link holds up. */
  look(isHeldUp: boolean): void {
    const isBusy = isHeldUp || this.#bulkBytes >= BULK_BYTES
    this.#share += ((isBusy ? 1 : 0) - this.#share) * LOOK_WEIGHT
    this.#isSendingCrowded = this.#share >= (this.#isSendingCrowded ? CROWDED_UNTIL : CROWDED_FROM)
    this.#bulkBytes = 0
    this.recentBytes = this.passedBytes
    this.passedBytes = 0
    if (this.#wordLooks > 0) this.#wordLooks--
  }
}
