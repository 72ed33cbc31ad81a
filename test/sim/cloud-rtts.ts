/**
 * Round trips between regions of the big clouds.
 *
 * MEASURED, for the 38 places below: Microsoft, "Azure network round-trip latency statistics"
 * (learn.microsoft.com/azure/networking/azure-network-latency, text of 30 July 2026): 95th percentile of the month that
 * ended on that day, whole milliseconds, between the Azure regions named first in each row. Microsoft gives each direction
 * its own figure (routes may differ there and back); the lesser of the two stands here.
 *
 * DERIVED, for regions of AWS and Google Cloud: a region takes the figures of the Azure region that stands in the same
 * metropolitan area (so `aws-eu-central-1` to `gcp-us-east4` is Frankfurt to Virginia over Azure's network). Nobody
 * publishes a matrix across clouds. Two regions in one place are `SAME_PLACE_MS` apart, two nodes in one region
 * `SAME_REGION_MS`. Latitudes and longitudes are those of the towns, for drawing only.
 */
export interface CloudPlace {
  readonly place: string
  readonly latitude: number
  readonly longitude: number
  /** The Azure region that was measured, then others in the same metropolitan area. */
  readonly regions: readonly string[]
}

/** Two clouds in one metropolitan area. Guess: they meet at an exchange in town; Azure's own neighbours there are 5 ms apart. */
const SAME_PLACE_MS = 2
/** Two zones of one region. IBM publishes 0.1 to 2.5 ms between its zones (cloud.ibm.com/docs/vpc, "Network latency"). */
const SAME_REGION_MS = 1

export const CLOUD_PLACES: readonly CloudPlace[] = [
  { place: 'Virginia', latitude: 38.9, longitude: -77.5, regions: ['azure-eastus', 'aws-us-east-1', 'gcp-us-east4'] },
  { place: 'Iowa', latitude: 41.6, longitude: -93.6, regions: ['azure-centralus', 'gcp-us-central1'] },
  { place: 'Texas', latitude: 29.4, longitude: -98.5, regions: ['azure-southcentralus'] },
  { place: 'California', latitude: 37.8, longitude: -122.2, regions: ['azure-westus', 'aws-us-west-1'] },
  { place: 'Washington', latitude: 47.2, longitude: -119.9, regions: ['azure-westus2'] },
  { place: 'Phoenix', latitude: 33.4, longitude: -112.1, regions: ['azure-westus3'] },
  {
    place: 'Toronto',
    latitude: 43.7,
    longitude: -79.4,
    regions: ['azure-canadacentral', 'gcp-northamerica-northeast2'],
  },
  { place: 'Quebec', latitude: 46.8, longitude: -71.2, regions: ['azure-canadaeast'] },
  {
    place: 'Queretaro',
    latitude: 20.6,
    longitude: -100.4,
    regions: ['azure-mexicocentral', 'aws-mx-central-1', 'gcp-northamerica-south1'],
  },
  {
    place: 'Sao Paulo',
    latitude: -23.5,
    longitude: -46.6,
    regions: ['azure-brazilsouth', 'aws-sa-east-1', 'gcp-southamerica-east1'],
  },
  { place: 'Dublin', latitude: 53.3, longitude: -6.3, regions: ['azure-northeurope', 'aws-eu-west-1'] },
  { place: 'London', latitude: 51.5, longitude: -0.1, regions: ['azure-uksouth', 'aws-eu-west-2', 'gcp-europe-west2'] },
  {
    place: 'Paris',
    latitude: 48.9,
    longitude: 2.4,
    regions: ['azure-francecentral', 'aws-eu-west-3', 'gcp-europe-west9'],
  },
  { place: 'Brussels', latitude: 50.8, longitude: 4.4, regions: ['azure-belgiumcentral', 'gcp-europe-west1'] },
  { place: 'Netherlands', latitude: 52.4, longitude: 4.9, regions: ['azure-westeurope', 'gcp-europe-west4'] },
  {
    place: 'Frankfurt',
    latitude: 50.1,
    longitude: 8.7,
    regions: ['azure-germanywestcentral', 'aws-eu-central-1', 'gcp-europe-west3'],
  },
  {
    place: 'Zurich',
    latitude: 47.4,
    longitude: 8.5,
    regions: ['azure-switzerlandnorth', 'aws-eu-central-2', 'gcp-europe-west6'],
  },
  {
    place: 'Milan',
    latitude: 45.5,
    longitude: 9.2,
    regions: ['azure-italynorth', 'aws-eu-south-1', 'gcp-europe-west8'],
  },
  { place: 'Madrid', latitude: 40.4, longitude: -3.7, regions: ['azure-spaincentral', 'gcp-europe-southwest1'] },
  { place: 'Warsaw', latitude: 52.2, longitude: 21.0, regions: ['azure-polandcentral', 'gcp-europe-central2'] },
  { place: 'Gavle', latitude: 60.7, longitude: 17.1, regions: ['azure-swedencentral', 'aws-eu-north-1'] },
  {
    place: 'Israel',
    latitude: 31.8,
    longitude: 34.9,
    regions: ['azure-israelcentral', 'aws-il-central-1', 'gcp-me-west1'],
  },
  { place: 'Doha', latitude: 25.3, longitude: 51.5, regions: ['azure-qatarcentral', 'gcp-me-central1'] },
  { place: 'Dubai', latitude: 25.2, longitude: 55.3, regions: ['azure-uaenorth', 'aws-me-central-1'] },
  { place: 'Johannesburg', latitude: -26.2, longitude: 28.0, regions: ['azure-southafricanorth', 'gcp-africa-south1'] },
  { place: 'Cape Town', latitude: -33.9, longitude: 18.4, regions: ['azure-southafricawest', 'aws-af-south-1'] },
  {
    place: 'Pune',
    latitude: 18.5,
    longitude: 73.9,
    regions: ['azure-centralindia', 'aws-ap-south-1', 'gcp-asia-south1'],
  },
  { place: 'Chennai', latitude: 13.1, longitude: 80.3, regions: ['azure-southindia'] },
  {
    place: 'Singapore',
    latitude: 1.3,
    longitude: 103.8,
    regions: ['azure-southeastasia', 'aws-ap-southeast-1', 'gcp-asia-southeast1'],
  },
  { place: 'Kuala Lumpur', latitude: 3.1, longitude: 101.7, regions: ['azure-malaysiawest', 'aws-ap-southeast-5'] },
  {
    place: 'Jakarta',
    latitude: -6.2,
    longitude: 106.8,
    regions: ['azure-indonesiacentral', 'aws-ap-southeast-3', 'gcp-asia-southeast2'],
  },
  {
    place: 'Hong Kong',
    latitude: 22.3,
    longitude: 114.2,
    regions: ['azure-eastasia', 'aws-ap-east-1', 'gcp-asia-east2'],
  },
  {
    place: 'Seoul',
    latitude: 37.6,
    longitude: 127.0,
    regions: ['azure-koreacentral', 'aws-ap-northeast-2', 'gcp-asia-northeast3'],
  },
  {
    place: 'Tokyo',
    latitude: 35.7,
    longitude: 139.7,
    regions: ['azure-japaneast', 'aws-ap-northeast-1', 'gcp-asia-northeast1'],
  },
  {
    place: 'Osaka',
    latitude: 34.7,
    longitude: 135.5,
    regions: ['azure-japanwest', 'aws-ap-northeast-3', 'gcp-asia-northeast2'],
  },
  {
    place: 'Sydney',
    latitude: -33.9,
    longitude: 151.2,
    regions: ['azure-australiaeast', 'aws-ap-southeast-2', 'gcp-australia-southeast1'],
  },
  {
    place: 'Melbourne',
    latitude: -37.8,
    longitude: 145.0,
    regions: ['azure-australiasoutheast', 'aws-ap-southeast-4', 'gcp-australia-southeast2'],
  },
  { place: 'Auckland', latitude: -36.8, longitude: 174.8, regions: ['azure-newzealandnorth', 'aws-ap-southeast-6'] },
]

/** Row i: round trips of place i to the places 0..i-1, milliseconds. */
const RTTS_MS: readonly (readonly number[])[] = [
  [],
  [35],
  [44, 29],
  [72, 41, 38],
  [75, 41, 57, 25],
  [65, 49, 25, 22, 42],
  [21, 35, 57, 70, 68, 75],
  [27, 45, 65, 78, 77, 89, 14],
  [63, 48, 24, 53, 74, 42, 74, 81],
  [119, 154, 142, 170, 179, 163, 132, 134, 158],
  [74, 107, 112, 137, 135, 132, 78, 74, 121, 176],
  [80, 112, 118, 144, 144, 138, 83, 78, 132, 183, 14],
  [90, 120, 118, 152, 153, 137, 91, 87, 132, 192, 20, 12],
  [93, 122, 123, 154, 155, 146, 96, 92, 136, 196, 23, 16, 10],
  [89, 114, 126, 151, 147, 145, 92, 88, 135, 189, 19, 12, 15, 10],
  [97, 125, 131, 157, 159, 150, 100, 96, 145, 199, 28, 19, 14, 12, 14],
  [104, 130, 136, 162, 161, 152, 101, 97, 154, 202, 32, 25, 18, 17, 20, 12],
  [105, 132, 142, 166, 166, 161, 105, 99, 158, 206, 40, 32, 25, 23, 28, 18, 12],
  [83, 110, 108, 138, 142, 127, 92, 88, 121, 184, 35, 26, 21, 26, 29, 30, 29, 37],
  [104, 134, 143, 167, 167, 164, 114, 110, 150, 211, 38, 34, 33, 29, 28, 26, 30, 31, 50],
  [108, 142, 143, 168, 165, 166, 112, 109, 161, 204, 37, 34, 40, 35, 31, 31, 34, 45, 54, 28],
  [126, 150, 158, 186, 185, 176, 126, 121, 171, 228, 80, 69, 61, 65, 66, 58, 55, 53, 59, 61, 84],
  [165, 192, 195, 221, 224, 222, 166, 161, 213, 265, 100, 92, 87, 90, 94, 93, 85, 92, 89, 110, 118, 115],
  [190, 212, 228, 249, 255, 248, 187, 183, 231, 288, 130, 122, 116, 109, 123, 122, 105, 115, 117, 138, 148, 126, 16],
  [
    225, 251, 250, 278, 284, 269, 235, 231, 268, 326, 178, 169, 165, 174, 171, 172, 174, 179, 149, 198, 196, 212, 115,
    104,
  ],
  [
    205, 234, 233, 261, 267, 252, 215, 211, 245, 309, 160, 152, 147, 148, 154, 156, 152, 160, 128, 172, 179, 180, 135,
    125, 24,
  ],
  [
    214, 245, 246, 224, 218, 240, 216, 212, 267, 320, 159, 150, 147, 148, 153, 150, 145, 144, 148, 169, 174, 157, 47,
    34, 134, 154,
  ],
  [
    244, 231, 242, 203, 196, 219, 244, 240, 251, 334, 175, 163, 164, 142, 169, 168, 162, 160, 166, 181, 191, 169, 66,
    55, 154, 174, 24,
  ],
  [
    229, 201, 203, 171, 165, 187, 226, 237, 220, 337, 236, 183, 175, 186, 181, 179, 173, 182, 227, 201, 206, 181, 99,
    87, 190, 215, 58, 39,
  ],
  [
    233, 205, 215, 175, 168, 190, 229, 239, 226, 340, 231, 185, 177, 173, 186, 178, 170, 186, 187, 202, 212, 185, 100,
    91, 190, 208, 64, 43, 10,
  ],
  [
    240, 213, 222, 184, 176, 200, 236, 245, 232, 348, 243, 198, 175, 181, 182, 182, 178, 194, 197, 214, 221, 194, 108,
    99, 199, 215, 74, 51, 18, 23,
  ],
  [
    207, 181, 177, 151, 144, 160, 205, 219, 195, 315, 265, 274, 278, 214, 278, 244, 237, 245, 229, 247, 259, 214, 129,
    119, 272, 269, 95, 74, 40, 38, 52,
  ],
  [
    191, 163, 164, 133, 127, 143, 189, 200, 172, 289, 255, 261, 266, 248, 267, 271, 276, 276, 262, 285, 284, 245, 162,
    153, 250, 270, 126, 103, 71, 70, 82, 41,
  ],
  [
    165, 139, 140, 109, 102, 118, 165, 176, 147, 265, 232, 235, 241, 244, 240, 246, 254, 256, 227, 258, 258, 250, 171,
    155, 254, 310, 129, 107, 74, 77, 86, 51, 35,
  ],
  [
    171, 147, 137, 116, 109, 122, 171, 182, 153, 271, 236, 241, 247, 228, 246, 252, 245, 260, 233, 264, 263, 250, 165,
    155, 257, 271, 129, 108, 74, 78, 88, 50, 26, 14,
  ],
  [
    206, 178, 172, 141, 179, 169, 207, 215, 184, 298, 272, 277, 279, 284, 282, 290, 286, 285, 265, 300, 303, 272, 186,
    179, 347, 339, 151, 132, 98, 125, 110, 127, 132, 105, 111,
  ],
  [
    217, 188, 183, 152, 190, 185, 217, 226, 194, 310, 281, 286, 285, 266, 291, 299, 274, 292, 276, 306, 307, 266, 179,
    171, 340, 340, 145, 122, 89, 94, 101, 130, 142, 115, 122, 16,
  ],
  [
    198, 172, 172, 145, 140, 159, 192, 206, 181, 309, 265, 276, 268, 279, 273, 294, 279, 288, 275, 294, 300, 296, 215,
    206, 335, 315, 178, 157, 123, 130, 138, 147, 157, 130, 138, 30, 42,
  ],
]

const placeOfRegion = new Map(CLOUD_PLACES.flatMap(({ regions }, place) => regions.map(region => [region, place])))

/** Every region of the table: first one of each place, Azure's and the others' taken in turn, then the rest. */
export const CLOUD_REGIONS: readonly string[] = orderRegions()

/** Round trip between two regions of the table, milliseconds; undefined if either is not in it. */
export function cloudRttMs(a: string, b: string): number | undefined {
  const from = placeOfRegion.get(a)
  const to = placeOfRegion.get(b)
  if (from === undefined || to === undefined) return undefined
  if (a === b) return SAME_REGION_MS
  if (from === to) return SAME_PLACE_MS
  return RTTS_MS[Math.max(from, to)]?.[Math.min(from, to)]
}

/** Where a region of the table is; undefined if it is not in it. */
export function cloudPlace(region: string): CloudPlace | undefined {
  return CLOUD_PLACES[placeOfRegion.get(region) ?? -1]
}

/** A few nodes should already span the globe and the three clouds: the places are taken in strides, the clouds in turn. */
function orderRegions(): string[] {
  const ordered: string[] = []
  for (let round = 0; ordered.length < placeOfRegion.size; round++) {
    for (let i = 0; i < CLOUD_PLACES.length; i++) {
      // 38 places and 11 have no common divisor, so a stride of 11 meets every place once.
      const { regions } = CLOUD_PLACES[(i * 11) % CLOUD_PLACES.length] as CloudPlace
      if (round < regions.length) ordered.push(regions[(round + i) % regions.length] as string)
    }
  }
  return ordered
}
