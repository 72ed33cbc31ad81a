/** What went over call links since the start, of all links together. */
export interface LinkCounts {
  framesIn: number
  framesOut: number
  /** On the carrier, headers of frames included, encryption not. */
  bytesIn: number
  bytesOut: number
  /** Times a call that had data stopped because its own window was used up, or the link's. */
  callWindowsExhausted: number
  linkWindowsExhausted: number
}

export function createLinkCounts(): LinkCounts {
  return { framesIn: 0, framesOut: 0, bytesIn: 0, bytesOut: 0, callWindowsExhausted: 0, linkWindowsExhausted: 0 }
}
