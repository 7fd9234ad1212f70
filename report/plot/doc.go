// Package plot draws lines, scatters, bars and heat maps as SVG.
//
// What enters: numbers and names. What leaves: the text of one <svg> element, the same for the same input, that needs no
// script and no font of its own. Names are escaped. Colours are those of Okabe and Ito, which people with any colour vision
// can tell apart, and of viridis in heat maps; series beyond the palette are dashed. Colours come from classes, so that one
// style sheet (Style) serves all drawings of a page, in light and dark mode; File wraps a drawing with it as a file.
package plot
