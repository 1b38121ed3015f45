# Make a trained network more robust: only its last layer, from the weights in net.pt.
curricula train --model mynet.py:OwnNet --init net.pt --freeze backbone --head-lr 0.1 \
    --perturb 'rot+pgd(0.1, steps=1)' --data 'random(size=12, channels=1, images=30)' \
    --epochs 1 --batch-size 9 --lr 0.01 --device cpu -o run
