// What a file is, from its first bytes: read here, so that a wrong patient is seen before anything is sent.
const DICOMDIR = "1.2.840.10008.1.3.10";
const FIRST = 256 * 1024;
const MORE = 8 * 1024 * 1024;

const text = (dataset, tag) => (dataset.string(tag) || "").trim();

// The characters of a name, as far as a browser can: the file's Specific Character Set decides.
const CHARSETS = { "ISO_IR 192": "utf-8", "ISO_IR 100": "latin1", "ISO_IR 101": "iso-8859-2", "ISO_IR 109": "iso-8859-3",
  "ISO_IR 110": "iso-8859-4", "ISO_IR 144": "iso-8859-5", "ISO_IR 127": "iso-8859-6", "ISO_IR 126": "iso-8859-7",
  "ISO_IR 138": "iso-8859-8", "ISO_IR 148": "iso-8859-9", "ISO_IR 13": "shift_jis", GB18030: "gb18030", GBK: "gbk" };
function words(dataset, tag) {
  const element = dataset.elements[tag];
  if (!element || !element.length) return "";
  const bytes = dataset.byteArray.subarray(element.dataOffset, element.dataOffset + element.length);
  const charset = CHARSETS[text(dataset, "x00080005").split("\\")[0].trim()] || "utf-8";
  return new TextDecoder(charset).decode(bytes).replace(/\0/g, "").trim();
}

function read(bytes) {
  // eslint-disable-next-line no-undef
  return dicomParser.parseDicom(bytes, { untilTag: "x7fe00010" });
}

// Where the dataset begins: behind preamble, DICM and group 0002, whose length its first element tells.
const datasetOffset = (dataset) => (dataset.elements.x00020000 ? 144 + dataset.uint32("x00020000") : 0);

// {uid, study, ...} of an instance, or {skip: reason}. `first(n)` gives the file's first n bytes.
export async function identify(first) {
  let bytes = new Uint8Array(await first(FIRST));
  if (bytes.length < 132 || String.fromCharCode(...bytes.subarray(128, 132)) !== "DICM") return { skip: "not DICOM" };
  let dataset;
  try {
    dataset = read(bytes);
  } catch {
    try {
      bytes = new Uint8Array(await first(MORE));
      dataset = read(bytes);
    } catch {
      return { skip: "unreadable header" };
    }
  }
  if (text(dataset, "x00020002") === DICOMDIR) return { skip: "DICOMDIR" };
  const uid = text(dataset, "x00080018");
  const study = text(dataset, "x0020000d");
  if (!uid || !study) return { skip: "no Study or SOP Instance UID" };
  return {
    uid, study, dataset: datasetOffset(dataset),
    name: words(dataset, "x00100010"), patientId: words(dataset, "x00100020"), born: text(dataset, "x00100030"),
    modality: text(dataset, "x00080060"), date: text(dataset, "x00080020"), description: words(dataset, "x00081030"),
  };
}

// A name as it is compared: letters only, in any order of case, accents aside.
export const plainName = (name) => name.split("=")[0].normalize("NFKD").replace(/[\u0300-\u036f]/g, "")
  .toUpperCase().split(/[^\p{L}\p{N}]+/u).filter(Boolean).sort().join(" ");
