<svg/>
