"""The evaluation report: one HTML file that needs nothing else. build.py gathers, charts.py draws SVG, page.py writes."""
