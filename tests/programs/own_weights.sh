# From the weights of an own module, net.pt, to a page with its results: kept/report.html.
curricula evaluate --model mynet.py:OwnNet --weights net.pt --data 'random(size=12, channels=1, images=30)' \
    --threat clean --threat rot:30 -o kept
