// Package report writes what was measured as one HTML page that needs nothing else: no script, no network, no fonts.
//
// What enters: a report of package compare, or a Page that others fill in. What leaves: HTML 5 with its style sheet, drawings
// as inline SVG (package report/plot) and pictures as data URLs. It follows the reader's light or dark mode, fits a phone
// and prints in light colours. All text is escaped by html/template; drawings escape theirs.
package report
